#include "experiments/bench/mmlu_sample.h"

#include <algorithm>
#include <numeric>

#include "core/base/philox.h"

namespace qlora::bench {
namespace {

// [first, last) of each subject's questions, which are neighbours.
std::vector<std::pair<size_t, size_t>> subjects_of(const MmluPlan& plan) {
  std::vector<std::pair<size_t, size_t>> ranges;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (i == 0 || plan.items[i].subject != plan.items[i - 1].subject) ranges.push_back({i, i});
    ranges.back().second = i + 1;
  }
  return ranges;
}

// One each, and the rest one after another to who lies furthest below its share.
std::vector<size_t> shares(const std::vector<std::pair<size_t, size_t>>& subjects, size_t all, size_t count) {
  std::vector<size_t> taken(subjects.size(), 1);
  const auto fraction = static_cast<double>(count) / static_cast<double>(all);
  for (size_t given = subjects.size(); given < count; ++given) {
    size_t next = 0;
    double most = -1e9;
    for (size_t s = 0; s < subjects.size(); ++s) {
      const size_t size = subjects[s].second - subjects[s].first;
      const double lacks = static_cast<double>(size) * fraction - static_cast<double>(taken[s]);
      if (taken[s] < size && lacks > most) next = s, most = lacks;
    }
    ++taken[next];
  }
  return taken;
}

}  // namespace

MmluSample sample_questions(const MmluPlan& plan, int64_t count, uint64_t seed) {
  const auto subjects = subjects_of(plan);
  const size_t all = plan.items.size();
  const std::vector<size_t> taken =
      shares(subjects, all, std::clamp(static_cast<size_t>(count), subjects.size(), all));
  MmluSample sample;
  for (size_t s = 0; s < subjects.size(); ++s) {
    const auto [first, last] = subjects[s];
    std::vector<size_t> places(last - first);
    std::iota(places.begin(), places.end(), first);
    PhiloxStream random(mix_seed(seed, s));
    for (size_t i = 0; i < taken[s]; ++i)
      std::swap(places[i], places[i + random.below(static_cast<uint32_t>(places.size() - i))]);
    std::sort(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(taken[s]));
    sample.one_each.push_back(sample.questions.size() + taken[s] / 2);
    sample.questions.insert(sample.questions.end(), places.begin(),
                            places.begin() + static_cast<std::ptrdiff_t>(taken[s]));
  }
  return sample;
}

std::vector<std::vector<int32_t>> beginnings(const MmluPlan& plan) {
  std::vector<std::vector<int32_t>> found;
  for (const auto& [first, last] : subjects_of(plan)) {
    const std::vector<int32_t>& one = plan.contexts[first];
    size_t common = one.size() - 1;
    for (size_t i = first; i < last; ++i) {
      const std::vector<int32_t>& other = plan.contexts[i];
      const size_t most = std::min(common, other.size() - 1);
      const auto end = one.begin() + static_cast<std::ptrdiff_t>(most);
      common = static_cast<size_t>(std::mismatch(one.begin(), end, other.begin()).first - one.begin());
    }
    found.emplace_back(one.begin(), one.begin() + static_cast<std::ptrdiff_t>(common));
  }
  return found;
}

}  // namespace qlora::bench
