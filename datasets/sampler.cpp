#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "datasets/dataset.h"

namespace qlora {
namespace {

constexpr uint64_t kWindowBatches = 50;  // of group_by_length, as transformers' sampler

using Examples = std::shared_ptr<const std::vector<TokenExample>>;

// Fisher-Yates with the numbers of one key.
void shuffle(std::vector<uint32_t>& order, uint64_t key) {
  PhiloxStream random(key);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
}

std::vector<uint32_t> counting(size_t n) {
  std::vector<uint32_t> order(n);
  for (size_t i = 0; i < n; ++i) order[i] = static_cast<uint32_t>(i);
  return order;
}

class Sampler final : public ExampleSource {
 public:
  Sampler(Examples examples, uint64_t seed, bool group_by_length, uint64_t batch)
      : examples_(std::move(examples)), seed_(seed), grouped_(group_by_length), batch_(batch) {
    uint64_t batches = std::min(kWindowBatches, count() / (4 * batch_));
    window_size_ = std::max<uint64_t>(1, batches) * batch_;
  }

  std::optional<TokenExample> next() override {
    uint32_t index = grouped_ ? grouped_at(position_) : shuffled_at(position_);
    ++position_;
    return (*examples_)[index];
  }

  Json save() const override {
    return {{"position", position_},
            {"epoch", static_cast<double>(position_) / static_cast<double>(count())},
            {"examples", count()},
            {"seed", seed_},
            {"group_by_length", grouped_},
            {"batch", batch_}};
  }

  void restore(const Json& state) override {
    Json mine = save();
    for (const char* key : {"examples", "seed", "group_by_length", "batch"}) {
      Json found = state.value(key, Json());
      QLORA_CHECK(found == mine[key], data,
                  "the saved data position is of another order: `{}` is {} there, {} here", key, found.dump(),
                  mine[key].dump());
    }
    QLORA_CHECK(state.contains("position") && state["position"].is_number_unsigned(), data,
                "the saved data position has no `position`");
    position_ = state["position"];
  }

 private:
  uint64_t count() const { return examples_->size(); }

  // The example at a place of the stream of shuffled epochs.
  uint32_t shuffled_at(uint64_t place) {
    uint64_t epoch = place / count();
    if (epoch != epoch_) {
      order_ = counting(count());
      shuffle(order_, mix_seed(mix_seed(seed_, 0), epoch));
      epoch_ = epoch;
    }
    return order_[place % count()];
  }

  // The same stream, rearranged inside windows.
  uint32_t grouped_at(uint64_t place) {
    uint64_t window = place / window_size_;
    if (window != window_) {
      fill_window(window);
      window_ = window;
    }
    return ordered_window_[place % window_size_];
  }

  void fill_window(uint64_t window) {
    std::vector<uint32_t> members;
    for (uint64_t i = 0; i < window_size_; ++i) members.push_back(shuffled_at(window * window_size_ + i));
    std::stable_sort(members.begin(), members.end(), [&](uint32_t a, uint32_t b) {
      return (*examples_)[a].ids.size() > (*examples_)[b].ids.size();
    });
    // Groups come in a shuffled order, so that the loss does not swing with the length.
    std::vector<uint32_t> groups = counting(window_size_ / batch_);
    shuffle(groups, mix_seed(mix_seed(seed_, 1), window));
    ordered_window_.clear();
    for (uint32_t group : groups)
      for (uint64_t i = 0; i < batch_; ++i) ordered_window_.push_back(members[group * batch_ + i]);
  }

  static constexpr uint64_t kNone = ~uint64_t{0};
  Examples examples_;
  uint64_t seed_;
  bool grouped_;
  uint64_t batch_, window_size_ = 0;
  uint64_t position_ = 0;
  uint64_t epoch_ = kNone, window_ = kNone;  // what the two orders below are for
  std::vector<uint32_t> order_, ordered_window_;
};

}  // namespace

std::unique_ptr<ExampleSource> make_sampler(Examples examples, uint64_t seed, bool group_by_length,
                                            int64_t batch) {
  QLORA_CHECK(examples != nullptr && !examples->empty(), data, "a sampler needs at least one example");
  QLORA_CHECK(batch >= 1, usage, "the batch of a sampler must be at least 1, found {}", batch);
  return std::make_unique<Sampler>(std::move(examples), seed, group_by_length, static_cast<uint64_t>(batch));
}

}  // namespace qlora
