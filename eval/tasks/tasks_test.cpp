// Laws over every registered task, on the samples of datasets/samples/tasks.
#include <catch2/catch.hpp>

#include <cmath>
#include <map>

#include "core/base/test_data.h"
#include "datasets/test_tools.h"
#include "eval/tasks/mmlu.h"
#include "eval/tasks/run_task.h"
#include "eval/test_lm.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

Path samples() {
  return Path(test::source_folder()) / "datasets/samples/tasks";
}

Path samples(const Task& task) {
  return !task.folder ? samples() : samples() / (task.name.starts_with("bbh") ? "bbh" : task.name);
}

// The hash of all requests for the samples: a change of a prompt, a delimiter or an order changes it, and
// then needs a new version.
const std::map<std::string, std::string> kRequestHashes = {
    {"arc_challenge@1.0", "4e1a67a0bc02cc40b0a23da883a524f6aebf12f8676e6dd0543efee30d0b8c47"},
    {"arc_easy@1.0", "0b5177abc9bfb5400b7bd81f88b53ec98e387b6369663adc0ec3a3a7079ef93c"},
    {"bbh_cot_fewshot@4.0", "30b0cbcc13ed22f70b6f284942889df37c1e821a9f2f20b456dda1d693445305"},
    {"bbh_cot_zeroshot@3.0", "294820c816b62b9354189474e67cf5f899c784b6beef7656cc57f35b8f1f2d58"},
    {"bbh_fewshot@2.0", "bc1f321634935fb0ecc9b6c86b6dfd72323264f6fe218073ba8cd9904c06b8f8"},
    {"bbh_zeroshot@3.0", "af5e9794a73b5d0b22d070b0b96aec1e2f1ef67c81f84f7ffd08cc9d20cc9207"},
    {"boolq@2.0", "72da970ca07bcca5f48892f17ae416bd41c0f8c309eb71c3b4358d6b78ae3119"},
    {"cola@1.0", "c7ce241b68547ae1a25ab7ee4aaeae075e42b143aca6e6de06a0de42e3bede45"},
    {"crows_pairs_english@1.0", "58eff09f6d6517f565deb91602422a91bd9a0a06db1ef3ab18f8072f1a78159c"},
    {"gsm8k@3.0", "6807c9d3ed896d3469ea2bcefcc37396d1e12d64bc4d8e2512059d5efb8751fd"},
    {"hellaswag@1.0", "a0dd3521289bd4ce4b5b6f74e6298e97b008fd2a19c874e085e9ed6d5d69d8b8"},
    {"lambada_openai@1.0", "0f8b570a64373c93e5489db513cf84491c2e5232a667281e6613965ab3728397"},
    {"mmlu@hendrycks-2", "621ab3d420fc959e7f93ced0b209c47d0449011f28fbe5bf1621be517e70c662"},
    {"mmlu@lm_eval-3", "0bbead342998726f730f39fedeb2d85e82ed0b9f514cdbbf745cc2b28ef134bd"},
    {"mmlu@qlora-3", "f9524510272ce9c42a0bc71060c4e306eb13ba405ff506ed74ff774478d8abd2"},
    {"mnli@1.0", "bdf21435638f6a99366bcfd187e6c59b5fa026fd93ff9409e32766d6df269c39"},
    {"mnli_mismatch@1.0", "56f479cffe5e6adc971e39a28ec53d33b97b57499dc5723202222d83022bfca8"},
    {"mrpc@1.0", "90c80244b1512559913aa4a4073716705a5712e836321a61a94736ac57a7a146"},
    {"perplexity@1", "d99e19453de4866d0a83f318dbe74ccc608b72eb20d303e231d9111274c17154"},
    {"piqa@1.0", "093104d22e33eaecb16f72cf18c0301e7ea3102aff4632738e0a890003a76b19"},
    {"qnli@1.0", "077f6bb2099a5431af3f0f113b7e8c518dd9e350b74df841e21a0e3ce4a8c1bf"},
    {"qqp@2.0", "0a3a4a6ca8fe5b4d185e763cd8510e7b68117d3fb9c9e70b9a4459de0b59edb8"},
    {"rte@1.0", "7b27c26c9a77259ea35fed3c5c3c76a10b5984a1399331fd05198aeb0897d203"},
    {"samsum@1", "d420b1e2fd029c5bf8fc610f771ed1a5d8e08c3d5bb6b612008e0b41a3b0130f"},
    {"sst2@1.0", "ae7925465b5fe4cf98737777d760f9ad19c8eefdba458aae2810d7aa53a4c3d5"},
    {"stsb@1", "8260a2ec133c319824e5cd77f2202f75b640e5a8e7b291530541a960fe295301"},
    {"supernatural_instructions@2", "1411a0e89aa4904623885cda3171e28034ea5f68bdfcefe0b16fc59a83d37e22"},
    {"truthfulqa_mc1@2.0", "1a5352a44eddceacf4ff616494f46490967324f81033c073d01f0cc73677b7f9"},
    {"truthfulqa_mc2@3.0", "93ad416666a219bd45fc6ce28c36102025b5f41d1f0b23a671bb206cd8329d6a"},
    {"wikitext@2.0", "840fc6fda2b0e5e02112febe59417bf611b20b341dfd810e8913652d82a616a7"},
    {"winogrande@1.0", "8e2e9aa7c3a7176f628850c851e6f92f02c798913abe8ba685e8270ce1569562"},
    {"wnli@2.0", "5691838fcb2af325bf7c815a7676cb31aa83f228b287ca24fd0fe198e9fe90d0"},
};

// MMLU's by protocol, without and with examples, for the first question of each sample subject.
std::string mmlu_request_hash(const std::string& protocol, const Tokenizer& tokenizer) {
  Sha256 hash;
  for (int64_t shots : {0, 5}) {
    MmluOptions options;
    options.protocol = protocol;
    options.shots = shots;
    options.limit = 1;
    const MmluData data = read_mmlu(Path(test::source_folder()) / "datasets/samples/mmlu", options);
    hash.update(plan_mmlu(data, options, tokenizer, 100'000).request_hash);
  }
  return hex(hash.finish());
}

// One token a byte; BOS and EOS have names but are not added.
class PlainTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    return bytes_.encode(text, false);
  }
  std::string decode(std::span<const int32_t> ids, bool skip) const override {
    return bytes_.decode(ids, skip);
  }
  int64_t vocab_size() const override { return bytes_.vocab_size(); }
  const SpecialTokens& special() const override { return special_; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string token(int32_t) const override { return {}; }
  const std::string& content_hash() const override { return bytes_.content_hash(); }
  const std::string& chat_template() const override { return bytes_.chat_template(); }

 private:
  test::ByteTokenizer bytes_{false};
  SpecialTokens special_ = {.bos = 1, .eos = 2};
};

// Every right choice is certain, every wrong one is not; a text is answered by its target.
class KnowingLm final : public test::SilentLm {
 public:
  KnowingLm(const Task& task, const TaskData& data, const TaskPlan& plan, bool right)
      : task_(task), data_(data), plan_(plan), right_(right) {}
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> requests,
                                                  const OnAnswer<LogLikelihoodAnswer>&) override {
    std::vector<LogLikelihoodAnswer> answers;
    size_t choice = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      const size_t r = i % plan_.requests.size();
      choice = r > 0 && plan_.requests[r - 1].item == plan_.requests[r].item ? choice + 1 : 0;
      const TaskItem& item = data_.items[plan_.requests[r].item];
      const auto gold = static_cast<size_t>(item.gold);
      const bool true_choice = item.labels.empty() ? choice == gold : item.labels[choice] == 1;
      answers.push_back({true_choice == right_ ? -0.5 : -500.0, true_choice == right_});
    }
    return answers;
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> requests,
                                             const OnAnswer<std::vector<int32_t>>&) override {
    std::vector<std::vector<int32_t>> answers;
    for (size_t i = 0; i < requests.size(); ++i) {
      const TaskItem& item = data_.items[plan_.requests[i % plan_.requests.size()].item];
      std::string text = right_ ? item.targets[0] : "!";
      if (right_ && task_.name.starts_with("bbh_cot")) text = "So the answer is " + text + ".";
      answers.push_back(PlainTokenizer().encode(text, false));
    }
    return answers;
  }
  int64_t context_length() const override { return 100'000; }

 private:
  const Task& task_;
  const TaskData& data_;
  const TaskPlan& plan_;
  bool right_;
};

const TaskScore& whole(const TaskReport& report, const Metric& metric) {
  for (const TaskScore& s : report.scores)
    if (s.metric == metric.name && s.filter == metric.filter && s.group.empty()) return s;
  FAIL("no score " << metric.name);
  return report.scores[0];
}

}  // namespace

namespace {

void check_hash(const std::string& name, const std::string& hash) {
  const auto known = kRequestHashes.find(name);
  INFO(fmt::format("{{\"{}\", \"{}\"}},", name, hash));
  CHECK((known != kRequestHashes.end() && known->second == hash));
}

}  // namespace

TEST_CASE("tasks have names of their own in order and versions and metrics") {
  for (size_t i = 1; i < tasks().size(); ++i) CHECK(tasks()[i - 1].name < tasks()[i].name);
  for (const Task& task : tasks()) {
    CAPTURE(task.name);
    CHECK_FALSE(task.version.empty());
    CHECK_FALSE(task.about.empty());
    CHECK_FALSE(task.metrics.empty());
    CHECK(&find_task(task.name) == &task);
  }
  test::expect_error(ErrorKind::usage, {"unknown task `helaswag`", "did you mean `hellaswag`"},
                     [] { find_task("helaswag"); });
}

TEST_CASE("every task asks what it has always asked") {
  PlainTokenizer tokenizer;
  for (const Task& task : tasks()) {
    const TaskData data = read_task(task, samples(task), {});
    const TaskPlan plan = plan_task(task, data, {}, tokenizer, 100'000);
    for (const TaskItem& item : data.items) {
      CHECK(item.gold >= 0);
      if (task.kind == TaskKind::choice) CHECK(item.gold < static_cast<int64_t>(item.continuations.size()));
      CHECK_FALSE(item.document.empty());
    }
    check_hash(task.name + "@" + task.version, plan.request_hash);
  }
  // The one task with examples from a file: before they were drawn, the first were shown.
  const Task& gsm8k = find_task("gsm8k");
  const TaskOptions first{.fewshot_sampler = "first_n"};
  CHECK(plan_task(gsm8k, read_task(gsm8k, samples(), first), first, tokenizer, 100'000).request_hash ==
        "9e3b3807b00b07258c3273acd61dfbf1a5cd6f8b25296b085288f63bf56c736c");
  for (const MmluProtocol& p : mmlu_protocols())
    check_hash(fmt::format("mmlu@{}-{}", p.name, p.version), mmlu_request_hash(p.name, tokenizer));
}

TEST_CASE("the list of tasks has every task, and MMLU once a protocol") {
  std::vector<std::string> mmlu;
  size_t others = 0;
  const std::vector<ListedTask> list = listed_tasks();
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) CHECK(list[i - 1].name <= list[i].name);
    if (list[i].name != "mmlu") {
      ++others;
      continue;
    }
    mmlu.push_back(list[i].protocol + " " + list[i].version + " " + list[i].metrics[0]);
  }
  CHECK(mmlu == std::vector<std::string>{"hendrycks 2 acc", "lm_eval 3 acc", "qlora 3 acc_macro"});
  CHECK(others == tasks().size());
  CHECK(kRequestHashes.size() == list.size());  // every entry's requests are held
}

TEST_CASE("who knows every answer scores best and who knows none worst") {
  PlainTokenizer tokenizer;
  for (const Task& task : tasks()) {
    CAPTURE(task.name);
    const TaskData data = read_task(task, samples(task), {});
    const TaskPlan plan = plan_task(task, data, {}, tokenizer, 100'000);
    const std::vector<SubjectIndex> who = {-1, 0};
    KnowingLm knows(task, data, plan, true), errs(task, data, plan, false);
    const auto best = run_task(knows, tokenizer, task, data, plan, who);
    const TaskReport worst = run_task(errs, tokenizer, task, data, plan, who)[0];
    REQUIRE(best.size() == 2);
    CHECK(best[1].results.size() == data.items.size());
    for (const Metric& metric : task.metrics) {
      CAPTURE(metric.name, metric.filter);
      const double good = whole(best[0], metric).value, bad = whole(worst, metric).value;
      if (metric.name.starts_with("pct_stereotype")) {  // the first of a pair counts as the right one
        CHECK((good == 1 && bad == 0));
      } else if (metric.name == "likelihood_diff") {
        CHECK(good == Approx(bad));
      } else if (metric.name == "rouge2" && task.name == "supernatural_instructions") {
        CHECK((good == 0 && bad == 0));  // the sample's answers are single words, which have no pairs
      } else if (metric.higher_is_better) {
        CHECK(good == Approx(1));
        CHECK(bad <= 1e-9);
      } else {
        CHECK(good < bad);
      }
      CHECK(whole(best[1], metric).value == good);
    }
  }
}

TEST_CASE("examples stand before the question and come from their own file") {
  PlainTokenizer tokenizer;
  const Task& task = find_task("arc_easy");
  const TaskOptions options{.shots = 1, .limit = 1};
  const TaskData data = read_task(task, samples(), options);
  const TaskPlan plan = plan_task(task, data, options, tokenizer, 4096);
  CHECK(plan.requests[0].context ==
        "Question: Which animal lays eggs?\nAnswer: a hen\n\nQuestion: Which of these gives off its own "
        "light?\nAnswer:");
  CHECK(plan.requests[0].continuation == " the Moon");
  CHECK(plan.requests.size() == 4);
  CHECK(plan.partial);
  test::expect_error(ErrorKind::data, {"arc_easy_train.jsonl", "2 examples asked for, 1 found"},
                     [&] { read_task(task, samples(), {.shots = 2}); });
  test::expect_error(ErrorKind::usage, {"piqa with examples needs a file", "piqa_train.jsonl"},
                     [&] { read_task(find_task("piqa"), samples(), {.shots = 1}); });
  test::expect_error(ErrorKind::usage, {"truthfulqa_mc1 has 0 examples"},
                     [&] { read_task(find_task("truthfulqa_mc1"), samples(), {.shots = 3}); });
}

// The samples as pyarrow writes them: fixtures/make.py.
TEST_CASE("rows of Parquet are those of the other layouts") {
  const PlainTokenizer tokenizer;
  for (const char* name : {"arc_easy", "truthfulqa_mc2"}) {
    const Task& task = find_task(name);
    const Path fixtures = Path(test::source_folder()) / "eval/tasks/fixtures";
    const TaskData table = read_task(task, fixtures, {}), lines = read_task(task, samples(), {});
    CHECK(table.path == fixtures / (task.name + ".parquet"));
    CHECK(plan_task(task, table, {}, tokenizer, 100'000).request_hash ==
          plan_task(task, lines, {}, tokenizer, 100'000).request_hash);
    for (size_t i = 0; i < lines.items.size(); ++i) CHECK(table.items[i].document == lines.items[i].document);
  }
  test::expect_error(ErrorKind::data, {"arc_easy.parquet row 1: no field `answer`"}, [] {
    read_task(find_task("gsm8k"), Path(test::source_folder()) / "eval/tasks/fixtures/arc_easy.parquet",
              {.shots = 0});
  });
}

TEST_CASE("space at the end of a context moves to the continuation") {
  PlainTokenizer tokenizer;
  const TaskRequest pair = encode_pair(tokenizer, "ab  ", "c");
  CHECK(pair.context_tokens == tokenizer.encode("ab", false));
  CHECK(pair.continuation_tokens == tokenizer.encode("  c", false));
  test::ByteTokenizer with_special;
  CHECK(encode_pair(with_special, "", "c").context_tokens == std::vector<int32_t>{1});  // BOS
  const test::ByteTokenizer nameless(false);  // neither BOS nor EOS to start from
  CHECK_THROWS_AS(encode_pair(nameless, "", "c"), Error);
}

TEST_CASE("a request that is too long loses its beginning and is counted") {
  PlainTokenizer tokenizer;
  const Task& task = find_task("boolq");
  const TaskData data = read_task(task, samples(task), {});
  const TaskPlan plan = plan_task(task, data, {.max_length = 40}, tokenizer, 4096);
  CHECK(plan.cut == static_cast<int64_t>(plan.requests.size()));
  CHECK(plan.longest == 41);  // the last token is predicted, never read
  CHECK(plan.requests[1].continuation_tokens == tokenizer.encode(" yes", false));
  test::expect_error(ErrorKind::data, {"a continuation of 3 tokens does not fit the model's context of 2"},
                     [&] { plan_task(task, data, {.max_length = 2}, tokenizer, 4096); });
}

TEST_CASE("scores of groups are given beside those of the whole") {
  PlainTokenizer tokenizer;
  const Task& task = find_task("crows_pairs_english");
  const TaskData data = read_task(task, samples(task), {});
  const TaskPlan plan = plan_task(task, data, {}, tokenizer, 4096);
  KnowingLm lm(task, data, plan, true);
  const std::vector<SubjectIndex> who = {-1};
  const TaskReport report = run_task(lm, tokenizer, task, data, plan, who)[0];
  REQUIRE(report.scores.size() == 7);
  CHECK(report.scores[0].group.empty());
  CHECK(report.scores[0].n == 2);
  CHECK(report.scores[3].group == "age");
  CHECK(report.scores[3].n == 1);
  CHECK_FALSE(report.scores[3].standard_error);  // one item has no spread
  test::expect_error(ErrorKind::usage, {"unknown part of crows_pairs_english `agee`", "`age`"},
                     [&] { read_task(task, samples(), {.groups = {"agee"}}); });
}

TEST_CASE("the kinds of bias count the same in their plain mean, and by their size in the whole") {
  const Task& task = find_task("crows_pairs_english");
  TaskData data;
  std::vector<TaskItemResult> results;
  const std::vector<std::pair<std::string, double>> answers = {
      {"age", 1}, {"age", 0}, {"religion", 1}, {"religion", 1}, {"religion", 1}, {"religion", 0}};
  for (const auto& [group, value] : answers) {
    data.items.emplace_back().group = group;
    TaskItemResult& r = results.emplace_back();
    r.item = results.size() - 1;
    r.values = {{0.5}, {value}, {value}};
  }
  const std::vector<TaskScore> scores = score_task(task, data, results);
  REQUIRE(scores.size() == 7);
  CHECK((scores[1].metric == "pct_stereotype" && scores[1].value == Approx(4.0 / 6)));
  CHECK((scores[2].metric == "pct_stereotype_by_type" && scores[2].value == Approx((0.5 + 0.75) / 2)));
  CHECK(scores[2].n == 2);
  // The kinds' own errors are 0.5 and 0.25.
  CHECK(*scores[2].standard_error == Approx(std::sqrt(0.25 + 0.0625) / 2));
  for (const TaskScore& s : scores)
    if (!s.group.empty()) CHECK(s.metric != "pct_stereotype_by_type");
}

TEST_CASE("a similarity is the mean of the ratings by their likelihoods and correlates with people's") {
  test::TemporaryFolder dir;
  const Task& task = find_task("stsb");
  const Path file = dir.path() / "stsb.tsv";  // the original release's columns
  write_file(file, "index\tsentence1\tsentence2\tscore\n0\ta\tb\t4.750\n1\tc\td\t0.500\n2\te\tf\t2\n");
  const TaskData data = read_task(task, file, {});
  CHECK(data.items[0].rating == 4.75);
  CHECK(data.items[0].gold == 5);
  const double half = std::log(0.5), none = -1000;
  const auto rated = [&](const std::vector<double>& lls) {
    TaskAnswer answer;
    answer.log_likelihoods = lls;
    return task.value(task.metrics[0], data.items[0], answer).value;
  };
  CHECK(rated({none, none, none, half, half, none}) == Approx(3.5));
  CHECK(rated({-900, -900, -900, -900, -900, -900}) == Approx(2.5));  // none of them likely: still a mean

  std::vector<TaskItemResult> results(3);
  const std::vector<double> values = {3, 1, 2};
  for (size_t i = 0; i < 3; ++i) {
    results[i].item = i;
    results[i].values.assign(2, {values[i]});
  }
  auto scores = score_task(task, data, results);
  CHECK(scores[0].value == Approx(4.25 / std::sqrt(2 * 9.2916667)));
  CHECK(scores[1].value == Approx(1));
  for (TaskItemResult& r : results) r.values.assign(2, {0.1});
  for (const TaskScore& s : score_task(task, data, results)) {
    CHECK(std::isnan(s.value));
    CHECK_THAT(s.note, Contains("all predictions are equal"));
  }
  results.resize(1);
  CHECK_THAT(score_task(task, data, results)[0].note, Contains("fewer than two"));
  const Task& cola = find_task("cola");  // by scikit-learn's definition
  results[0].prediction = 0;
  CHECK(score_task(cola, data, results)[0].value == 0);
  CHECK_THAT(score_task(cola, data, results)[0].note, Contains("0 by definition"));
  write_file(file, "sentence1\tsentence2\tlabel\na\tb\t-1\n");
  test::expect_error(ErrorKind::data, {"stsb.tsv:2", "from 0 to 5"}, [&] { read_task(task, file, {}); });
}

TEST_CASE("a bad row of a task names its file and line and field") {
  test::TemporaryFolder dir;
  const Path file = dir.path() / "piqa.jsonl";
  const Task& task = find_task("piqa");
  auto error_of = [&](const std::string& content, const std::vector<std::string>& parts) {
    write_file(file, content);
    test::expect_error(ErrorKind::data, parts, [&] { read_task(task, dir.path(), {}); });
  };
  const std::string good = R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 1})";
  error_of(good + "\n" + R"({"goal": "g", "sol1": "a", "label": 1})",
           {file.string() + ":2", "no field `sol2`"});
  error_of(good + "\n{\"goal\": ", {file.string() + ":2", "not valid JSON"});
  error_of(R"({"goal": "g", "sol1": "a", "sol2": 7, "label": 1})", {":1", "`sol2` must be a text, found 7"});
  error_of(R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})", {"number 2 of 2 choices"});
  error_of(R"({"goal": "g", "sol1": "a", "sol2": "b"})", {"rows without `label`", "piqa-labels.lst"});
  error_of("", {"no rows"});
  test::expect_error(ErrorKind::data, {"no data of task boolq", "boolq.jsonl"},
                     [&] { read_task(find_task("boolq"), dir.path(), {}); });
}
