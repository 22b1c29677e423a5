#include "eval/tasks/fewshot.h"

#include <numeric>

#include "eval/tasks/python_random.h"

namespace qlora {
namespace {

// One more than are shown is drawn, so that the question itself can be left out. A file that has the question
// several times may leave too few: then they are drawn again, from the others.
std::vector<size_t> draw_others(const TaskData& data, const TaskItem& question, PythonRandom& random) {
  const std::vector<TaskItem>& pool = data.examples;
  const auto shots = static_cast<size_t>(data.shots);
  auto is_question = [&](size_t i) { return pool[i].document == question.document; };
  std::vector<size_t> drawn = random.sample(pool.size(), shots + 1);
  std::erase_if(drawn, is_question);
  if (drawn.size() < shots) {
    std::vector<size_t> others(pool.size());
    std::iota(others.begin(), others.end(), size_t{0});
    std::erase_if(others, is_question);
    QLORA_CHECK(others.size() >= shots, data, "{} examples asked for, {} are there beside question {} itself",
                shots, others.size(), question.index);
    drawn.clear();
    for (size_t i : random.sample(others.size(), shots)) drawn.push_back(others[i]);
  }
  drawn.resize(shots);
  return drawn;
}

}  // namespace

std::vector<std::vector<size_t>> choose_examples(const TaskData& data, size_t questions) {
  const auto shots = static_cast<size_t>(data.shots);
  std::vector<std::vector<size_t>> chosen(questions);
  if (shots == 0) return chosen;
  PythonRandom random(data.fewshot_seed);
  for (size_t i = 0; i < questions; ++i) {
    if (data.draw == FewshotDraw::first) {
      chosen[i].resize(shots);
      std::iota(chosen[i].begin(), chosen[i].end(), size_t{0});
    } else {
      chosen[i] = data.draw == FewshotDraw::drawn ? random.sample(data.examples.size(), shots)
                                                  : draw_others(data, data.items[i], random);
    }
  }
  return chosen;
}

}  // namespace qlora
