// Examples as lm-evaluation-harness 0.4.13 draws them. The figures were made with Python 3.11 and the
// harness' own ContextSampler.
#include <catch2/catch.hpp>

#include <tuple>

#include "core/base/test_data.h"
#include "datasets/test_tools.h"
#include "eval/tasks/fewshot.h"
#include "eval/tasks/python_random.h"

using namespace qlora;

namespace {

TaskItem numbered_item(int64_t number) {
  TaskItem item;
  item.index = number;
  item.document = fmt::format("{{\"i\": {}}}", number);
  return item;
}

// A pool of rows with these numbers, and questions 0, 1, 2, ...
TaskData data_of(const std::vector<int64_t>& pool, int64_t questions, int64_t shots, FewshotDraw draw) {
  TaskData data;
  for (int64_t number : pool) data.examples.push_back(numbered_item(number));
  for (int64_t i = 0; i < questions; ++i) data.items.push_back(numbered_item(i));
  data.shots = shots;
  data.draw = draw;
  data.fewshot_seed = 1234;
  return data;
}

std::vector<int64_t> first_numbers(int64_t n, int64_t copies = 1) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < n; ++i) numbers.push_back(i / copies);
  return numbers;
}

std::vector<std::vector<int64_t>> shown(const TaskData& data, size_t questions) {
  std::vector<std::vector<int64_t>> numbers;
  for (const auto& places : choose_examples(data, questions)) {
    numbers.emplace_back();
    for (size_t place : places) numbers.back().push_back(data.examples[place].index);
  }
  return numbers;
}

}  // namespace

TEST_CASE("random numbers are Python's") {
  auto words = [](uint64_t seed, int n) {
    PythonRandom random(seed);
    std::vector<uint32_t> drawn;
    for (int i = 0; i < n; ++i) drawn.push_back(random.next());
    return drawn;
  };
  CHECK(words(1234, 3) == std::vector<uint32_t>{4150886329, 3342196574, 1892932127});
  CHECK(words((uint64_t{1} << 40) + 7, 3) == std::vector<uint32_t>{2635837658, 3209733218, 3500038837});
  CHECK(words(0, 1500).back() == 1652152644);  // the state was made anew twice

  struct Case {
    size_t n, k;
    uint64_t seed;
    std::vector<size_t> drawn;
  };
  // On both sides of where Python takes another way: 21 for up to five, 85 for six.
  for (const Case& c :
       std::vector<Case>{{21, 5, 1234, {14, 3, 0, 2, 1}},
                         {22, 5, 1234, {14, 3, 0, 2, 18}},
                         {7473, 5, 1234, {6374, 3610, 957, 61, 742}},
                         {85, 6, 1, {17, 72, 8, 32, 15, 63}},
                         {86, 6, 1, {17, 72, 8, 32, 15, 63}},
                         {3, 3, 0, {1, 2, 0}},
                         {1, 1, 5, {0}},
                         {300, 25, 9, {237, 191, 136, 70, 95,  3,  173, 257, 41,  171, 283, 20, 194,
                                       86,  231, 216, 80, 121, 26, 56,  67,  259, 32,  196, 52}},
                         {270, 25, 9, {237, 191, 136, 70,  95,  3,  173, 257, 269, 41, 171, 20, 194,
                                       86,  231, 243, 185, 108, 40, 43,  60,  13,  28, 33,  129}}}) {
    CAPTURE(c.n, c.k);
    CHECK(PythonRandom(c.seed).sample(c.n, c.k) == c.drawn);
  }
}

TEST_CASE("examples are drawn for one question after the other as the harness does") {
  using Lists = std::vector<std::vector<int64_t>>;
  const std::vector<int64_t> pool = first_numbers(30);
  CHECK(shown(data_of(pool, 4, 3, FewshotDraw::drawn), 4) ==
        Lists{{24, 14, 3}, {0, 2, 29}, {25, 18, 1}, {21, 22, 2}});
  // The question itself is never among them: 0 was drawn for question 1's neighbour, 2 for question 3.
  const TaskData others = data_of(pool, 8, 3, FewshotDraw::drawn_others);
  const Lists all = {{24, 14, 3}, {2, 29, 25},  {1, 21, 22}, {24, 11, 7},
                     {0, 25, 11}, {19, 15, 14}, {2, 5, 22},  {27, 0, 16}};
  CHECK(shown(others, 8) == all);
  CHECK(shown(others, 2) == Lists(all.begin(), all.begin() + 2));  // a limit changes nothing
  CHECK(shown(data_of(pool, 2, 2, FewshotDraw::first), 2) == Lists{{0, 1}, {0, 1}});
  // A file with every row three times: where too few are left, the others are drawn from.
  CHECK(shown(data_of(first_numbers(12, 3), 4, 4, FewshotDraw::drawn_others), 4) ==
        Lists{{1, 3, 3, 1}, {3, 3, 0, 0}, {1, 0, 1, 1}, {1, 0, 1, 0}});
  test::expect_error(ErrorKind::data, {"2 examples asked for, 0 are there beside question 0"}, [] {
    choose_examples(data_of({0, 0, 0}, 1, 2, FewshotDraw::drawn_others), 1);
  });
}

TEST_CASE("a task draws its examples unless it is told to take the first") {
  test::TemporaryFolder dir;
  std::string rows;
  for (int i = 0; i < 40; ++i)
    rows += fmt::format("{{\"question\": \"{0}?\", \"answer\": \"so\\n#### {0}\"}}\n", i);
  write_file(dir.path() / "gsm8k.jsonl", rows);
  write_file(dir.path() / "gsm8k_train.jsonl", rows);
  const Task& task = find_task("gsm8k");
  const test::ByteTokenizer tokenizer(false);
  auto first_words = [&](TaskOptions options) {
    options.shots = 2;
    const TaskData data = read_task(task, dir.path(), options);
    std::string words;
    for (const TaskRequest& r : plan_task(task, data, options, tokenizer, 4096).requests)
      words += r.context.substr(10, r.context.find('?') - 10) + " ";
    return words;
  };
  const std::string drawn = first_words({.limit = 3});
  CHECK(drawn == "28 0 37 ");
  CHECK(drawn == first_words({.limit = 3, .fewshot_sampler = "lm_eval"}));
  CHECK(first_words({}).starts_with(drawn));
  CHECK(first_words({.limit = 3, .fewshot_sampler = "first_n"}) == "0 0 0 ");
  CHECK(first_words({.limit = 3, .fewshot_seed = 5}) != drawn);
  test::expect_error(ErrorKind::usage, {"unknown sampler of examples `frist_n`; did you mean `first_n`?"},
                     [&] { first_words({.fewshot_sampler = "frist_n"}); });
  write_file(dir.path() / "samsum.jsonl", "{\"dialogue\": \"a\", \"summary\": \"b\"}\n");
  write_file(dir.path() / "samsum_train.jsonl", "{\"dialogue\": \"a\", \"summary\": \"b\"}\n");
  test::expect_error(ErrorKind::usage, {"lm-evaluation-harness has no task samsum"}, [&] {
    read_task(find_task("samsum"), dir.path(), {.shots = 1, .fewshot_sampler = "lm_eval"});
  });
}

// The requests of 0.4.13 itself: its tasks hellaswag (3 examples of 36 rows, four of which are questions too)
// and gsm8k (5 of 300), of a data set on these rows.
TEST_CASE("whole prompts with drawn examples are those of the harness") {
  struct Case {
    std::string task, source;
    size_t questions, from, to;
    int64_t shots;
    std::string requests;
  };
  for (const Case& c :
       std::vector<Case>{{"hellaswag", "commonsense/hellaswag.jsonl", 8, 4, 40, 3,
                          "82e4c7621981ec33e7893f17234e49b1bd966efb1dd4c42225e46f282caf5836"},
                         {"gsm8k", "gsm8k/test.jsonl", 6, 100, 400, 5,
                          "8b94334e5a5bb28da83b0bdac91e9fca99b7f95bbcaf1727abe397c6831665d8"}}) {
    const Path source = test::test_data() / "06_eval" / c.source;
    if (test::missing(source)) return;
    std::vector<std::string> lines = split(read_file(source), '\n');
    auto rows = [&](size_t from, size_t to) {
      std::string text;
      for (size_t i = from; i < to; ++i) text += lines.at(i) + "\n";
      return text;
    };
    test::TemporaryFolder dir;
    write_file(dir.path() / (c.task + ".jsonl"), rows(0, c.questions));
    write_file(dir.path() / (c.task + "_train.jsonl"), rows(c.from, c.to));
    const TaskOptions options{.shots = c.shots};
    const Task& task = find_task(c.task);
    const TaskData data = read_task(task, dir.path(), options);
    CHECK(plan_task(task, data, options, test::ByteTokenizer(false), 100'000).request_hash == c.requests);
  }
}
