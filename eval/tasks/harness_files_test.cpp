// Files in the layout of lm-evaluation-harness against files that 0.4.13 wrote itself, of SmolLM2 and two
// questions of ours.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/base/test_data.h"
#include "datasets/test_tools.h"
#include "eval/tasks/harness_samples.h"

using namespace qlora;

namespace {

// Lines of its samples: a choice, a generated answer with a filter, a text that is scored whole.
const std::vector<std::string> kChoice = {R"json({"doc_id": 0, "doc": {"q": "What is 2+2? é", "choices": ["3", "four 4"], "label": 1, "x": 1.5}, "target": "1", "arguments": {"gen_args_0": {"arg_0": "Q: What is 2+2? é\nA:", "arg_1": " 3"}, "gen_args_1": {"arg_0": "Q: What is 2+2? é\nA:", "arg_1": " four 4"}}, "resps": [[["-4.043063163757324", "False"]], [["-16.927648544311523", "False"]]], "filtered_resps": [["-4.043063163757324", "False"], ["-16.927648544311523", "False"]], "filter": "none", "metrics": ["acc", "acc_norm"], "doc_hash": "bc08b34cec4811995ec67b53f9954d95c12737d2acc40b146ce2d104b8903c40", "prompt_hash": "5238be3279aaed7b520996d8ef2287363354b1f3eafce7613bfbd0ee867aedb4", "target_hash": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "acc": 0.0, "acc_norm": 1.0})json", R"json({"doc_id": 1, "doc": {"q": "Sky color?", "choices": ["blue", "green"], "label": 0, "x": 2.0}, "target": "0", "arguments": {"gen_args_0": {"arg_0": "Q: Sky color?\nA:", "arg_1": " blue"}, "gen_args_1": {"arg_0": "Q: Sky color?\nA:", "arg_1": " green"}}, "resps": [[["-7.060617446899414", "False"]], [["-9.228796005249023", "False"]]], "filtered_resps": [["-7.060617446899414", "False"], ["-9.228796005249023", "False"]], "filter": "none", "metrics": ["acc", "acc_norm"], "doc_hash": "04981dc4235f84abcf19dd8cd96c34990efcc52e16d228f495a27d513646a880", "prompt_hash": "e86313cce5d797001f3e3fec26b5627f94674d49a84b2077c55394dd52a5e4b3", "target_hash": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9", "acc": 1.0, "acc_norm": 1.0})json"};
const std::vector<std::string> kGenerated = {
    R"json({"doc_id": 0, "doc": {"q": "What is 2+2? é", "choices": ["3", "four 4"], "label": 1, "x": 1.5}, "target": "four 4", "arguments": {"gen_args_0": {"arg_0": "Q: What is 2+2? é\nA:", "arg_1": {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": false, "temperature": 0.0}}}, "resps": [[" 2+2 = 4\n"]], "filtered_resps": ["2"], "filter": "get-answer", "metrics": ["exact_match"], "doc_hash": "bc08b34cec4811995ec67b53f9954d95c12737d2acc40b146ce2d104b8903c40", "prompt_hash": "5238be3279aaed7b520996d8ef2287363354b1f3eafce7613bfbd0ee867aedb4", "target_hash": "070f302b5b07bf09ccd0e3a39502d9fcb00a3dab84772438a23a417229bf14bd", "exact_match": 0.0})json",
    R"json({"doc_id": 1, "doc": {"q": "Sky color?", "choices": ["blue", "green"], "label": 0, "x": 2.0}, "target": "blue", "arguments": {"gen_args_0": {"arg_0": "Q: Sky color?\nA:", "arg_1": {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": false, "temperature": 0.0}}}, "resps": [[" No, it's not a color."]], "filtered_resps": ["No"], "filter": "get-answer", "metrics": ["exact_match"], "doc_hash": "04981dc4235f84abcf19dd8cd96c34990efcc52e16d228f495a27d513646a880", "prompt_hash": "e86313cce5d797001f3e3fec26b5627f94674d49a84b2077c55394dd52a5e4b3", "target_hash": "16477688c0e00699c6cfa4497a3612d7e83c532062b64b250fed8908128ed548", "exact_match": 0.0})json"};
const std::vector<std::string> kRolling = {
    R"json({"doc_id": 0, "doc": {"q": "What is 2+2? é", "choices": ["3", "four 4"], "label": 1, "x": 1.5}, "target": "What is 2+2? é", "arguments": {"gen_args_0": {"arg_0": "What is 2+2? é"}}, "resps": [["-44.74510955810547"]], "filtered_resps": ["-44.74510955810547"], "filter": "none", "metrics": ["word_perplexity", "byte_perplexity"], "doc_hash": "bc08b34cec4811995ec67b53f9954d95c12737d2acc40b146ce2d104b8903c40", "prompt_hash": "896d3891d6f93cb9424007d9a4596a6423d958ff13a47e5d6a5451e339385711", "target_hash": "896d3891d6f93cb9424007d9a4596a6423d958ff13a47e5d6a5451e339385711", "word_perplexity": [-44.74510955810547, 4], "byte_perplexity": [-44.74510955810547, 15]})json",
    R"json({"doc_id": 1, "doc": {"q": "Sky color?", "choices": ["blue", "green"], "label": 0, "x": 2.0}, "target": "Sky color?", "arguments": {"gen_args_0": {"arg_0": "Sky color?"}}, "resps": [["-38.30916213989258"]], "filtered_resps": ["-38.30916213989258"], "filter": "none", "metrics": ["word_perplexity", "byte_perplexity"], "doc_hash": "04981dc4235f84abcf19dd8cd96c34990efcc52e16d228f495a27d513646a880", "prompt_hash": "defad74a708b28713dc351efa70d245e91fb3d86ec3f59bf03e478c555ca44a1", "target_hash": "defad74a708b28713dc351efa70d245e91fb3d86ec3f59bf03e478c555ca44a1", "word_perplexity": [-38.30916213989258, 2], "byte_perplexity": [-38.30916213989258, 10]})json"};
// And its `task_hashes`.
constexpr const char* kChoiceHash = "6420ad8066e3be4daaf97da7e3f7898014880f110bce42c0c5c05633fec77e69";
constexpr const char* kGeneratedHash = "3444a68997d467aea999abbd1130d1c263e3cd87c204f3becfbd530baaf69b22";
constexpr const char* kRollingHash = "6759813e7eaef490b3345b40ff34e0e30c7b445daf392eebabcbf7d4847e1efd";

// The keys of its results, of tasks and a group, and of `config`.
const std::set<std::string> kKeys = {"results",
                                     "groups",
                                     "group_subtasks",
                                     "configs",
                                     "versions",
                                     "n-shot",
                                     "higher_is_better",
                                     "n-samples",
                                     "config",
                                     "git_hash",
                                     "date",
                                     "pretty_env_info",
                                     "transformers_version",
                                     "lm_eval_version",
                                     "upper_git_hash",
                                     "tokenizer_pad_token",
                                     "tokenizer_eos_token",
                                     "tokenizer_bos_token",
                                     "eot_token_id",
                                     "max_length",
                                     "task_hashes",
                                     "model_source",
                                     "model_name",
                                     "model_name_sanitized",
                                     "system_instruction",
                                     "system_instruction_sha",
                                     "fewshot_as_multiturn",
                                     "chat_template",
                                     "chat_template_sha",
                                     "total_evaluation_time_seconds"};
const std::set<std::string> kConfigKeys = {
    "model",      "model_args",      "model_num_parameters", "model_dtype", "model_revision",
    "model_sha",  "batch_size",      "batch_sizes",          "device",      "use_cache",
    "limit",      "bootstrap_iters", "gen_kwargs",           "random_seed", "numpy_seed",
    "torch_seed", "fewshot_seed"};

// The answers of its lines as ours.
struct Answered {
  explicit Answered(TaskKind kind, const std::vector<std::string>& lines) {
    task.name = "tiny";
    task.version = "1.0";
    task.kind = kind;
    task.until = {"\n\n"};
    plan.max_new_tokens = 8;
    for (const std::string& text : lines) add(nlohmann::ordered_json::parse(text));
  }
  HarnessTask view() const { return {&task, &data, &plan, &report}; }

  Task task;
  TaskData data;
  TaskPlan plan;
  TaskReport report;

 private:
  void add(const nlohmann::ordered_json& line) {
    const size_t place = data.items.size();
    TaskItem& item = data.items.emplace_back();
    TaskItemResult& result = report.results.emplace_back();
    item.index = line["doc_id"];
    item.document = line["doc"].dump();
    item.gold = line["doc"]["label"];
    if (task.kind == TaskKind::generate) item.targets = {line["target"]};
    if (task.kind == TaskKind::rolling) item.continuations = {line["target"]};
    result.item = place;
    plan.asked.push_back(place);
    for (const auto& [key, arguments] : line["arguments"].items()) {
      TaskRequest& request = plan.requests.emplace_back();
      request.item = place;
      if (task.kind == TaskKind::rolling) continue;
      request.context = arguments["arg_0"];
      if (task.kind == TaskKind::choice) request.continuation = arguments["arg_1"];
    }
    for (const auto& response : line["resps"]) {
      const auto& said = response[0];
      if (task.kind == TaskKind::generate) {
        result.text = said;
        result.extracted = {line["filtered_resps"][0]};
        continue;
      }
      const std::string ll = said.is_array() ? said[0] : said;
      result.log_likelihoods.push_back(std::stof(ll));
      if (said.is_array()) result.greedy.push_back(said[1] == "True");
    }
    for (const auto& name : line["metrics"]) {
      const auto& value = line[name.get<std::string>()];
      result.values.push_back(value.is_array() ? MetricValue{value[0], value[1]} : MetricValue{value, 1});
    }
  }
};

// Equal as JSON, and in the order of keys.
void check_lines(const HarnessSamples& ours, const std::vector<std::string>& theirs) {
  std::istringstream lines(ours.lines);
  std::string line;
  for (const std::string& expected : theirs) {
    REQUIRE(std::getline(lines, line));
    CHECK(line == nlohmann::ordered_json::parse(expected).dump());
  }
  CHECK_FALSE(std::getline(lines, line));
}

std::set<std::string> keys_of(const Json& object) {
  std::set<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.insert(key);
  return keys;
}

std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("samples are what the harness writes of the same answers, to the byte of their JSON") {
  Answered choice(TaskKind::choice, kChoice);
  choice.task.metrics = {{"acc"}, {"acc_norm"}};
  check_lines(make_harness_samples(choice.view()), kChoice);
  CHECK(make_harness_samples(choice.view()).hash == kChoiceHash);
  Answered generated(TaskKind::generate, kGenerated);
  generated.task.metrics = {{"exact_match", Aggregation::mean, true, "get-answer"}};
  generated.task.filters = {{"get-answer", nullptr}};
  check_lines(make_harness_samples(generated.view()), kGenerated);
  CHECK(make_harness_samples(generated.view()).hash == kGeneratedHash);
  Answered rolling(TaskKind::rolling, kRolling);
  rolling.task.metrics = {{"word_perplexity"}, {"byte_perplexity"}};
  check_lines(make_harness_samples(rolling.view()), kRolling);
  CHECK(make_harness_samples(rolling.view()).hash == kRollingHash);
}

TEST_CASE("results have every key that the harness' have") {
  Answered choice(TaskKind::choice, kChoice);
  choice.task.metrics = {{"acc"}};
  choice.report.scores = {{"acc", "none", "", 2, 0.5, std::nullopt}};
  HarnessInfo info;
  info.model = "base/model";
  info.adapter = "runs\\a: [b]__/c";
  info.model_args = {{"quant", "nf4"}};
  info.peft_sha = "5ha";
  info.parameters = 7;
  info.fewshot_seed = 1234;
  info.started = "2026-11-29T12:19:59.250Z";
  info.date = "2026-11-29T12:20:26.622Z";
  info.system_instruction = "Be brief.";
  const HarnessTask task = choice.view();
  const HarnessGroup group{"g", "g", "2", {"tiny"}, choice.report.scores};
  const test::ByteTokenizer tokenizer;
  const Json results = parse_json(
      harness_results(info, tokenizer, std::span(&task, 1), std::span(&group, 1), {{"tiny", kChoiceHash}}),
      "results");
  CHECK(keys_of(results) == kKeys);
  std::set<std::string> config_keys = kConfigKeys;
  config_keys.insert("peft_sha");  // with an adapter, there as here
  CHECK(keys_of(results["config"]) == config_keys);
  CHECK((results["config"]["peft_sha"] == "5ha" && results["config"]["model_num_parameters"] == 7));
  CHECK((results["config"]["fewshot_seed"] == 1234 && results["config"]["random_seed"].is_null()));
  CHECK(results["config"]["model_args"] ==
        Json{{"pretrained", "base/model"}, {"peft", info.adapter}, {"quant", "nf4"}});
  // As the harness: the adapter names the model; one mark for a run of bad characters.
  CHECK(results["model_name"] == info.adapter);
  CHECK(results["model_name_sanitized"] == "runs__a__ __b______c");
  CHECK(results["date"] == 1795954799.25);
  CHECK(results["task_hashes"]["tiny"] == kChoiceHash);
  CHECK(results["versions"] == Json{{"g", "2"}, {"tiny", 1.0}});
  CHECK(results["tokenizer_eos_token"] == Json::array({tokenizer.token(2), "2"}));
  CHECK((results["chat_template"].is_null() && results["fewshot_as_multiturn"].is_null()));
  CHECK(results["system_instruction_sha"] == hex(sha256("Be brief.")));
}

TEST_CASE("parts of BIG-Bench-Hard are tasks of a group, each with a file of its samples") {
  const Task& task = find_task("bbh_cot_zeroshot");
  const Path folder = Path(test::source_folder()) / "datasets/samples/tasks/bbh";
  const TaskData data = read_task(task, folder, {});
  const test::ByteTokenizer tokenizer(false);
  const TaskPlan plan = plan_task(task, data, {}, tokenizer, 100'000);
  std::vector<ItemAnswer> answers(plan.asked.size());
  answers[0].text = "So the answer is " + data.items[0].targets[0] + ".";
  const TaskReport report = report_task(task, data, plan, answers);
  const HarnessParts parts = harness_parts({&task, &data, &plan, &report});
  std::set<std::string> groups;
  for (const TaskItem& item : data.items) groups.insert(item.group);
  REQUIRE(groups.size() > 1);
  REQUIRE(parts.groups.size() == 1);
  CHECK(parts.tasks.size() == groups.size());

  test::TemporaryFolder out;
  HarnessInfo info;
  info.model = "m";
  info.started = info.date = "2026-01-02T03:04:05.006Z";
  const Path written = write_harness_files(out.path(), info, tokenizer, parts.tasks, parts.groups);
  std::vector<std::string> expected = {"results_2026-01-02T03-04-05.006.json"};
  for (const std::string& group : groups)
    expected.push_back("samples_bbh_cot_zeroshot_" + group + "_2026-01-02T03-04-05.006.jsonl");
  CHECK(names_in(written) == expected);
  const Json results = parse_json(read_file(written / expected[0]), "results");
  const std::string first = "bbh_cot_zeroshot_" + data.items[0].group;
  CHECK(results["versions"]["bbh_cot_zeroshot"] == "3.0");
  CHECK(results["versions"][first] == 3.0);
  CHECK(results["configs"][first]["dataset_name"] == data.items[0].group);
  CHECK_FALSE(results["configs"].contains("bbh_cot_zeroshot"));
  CHECK(results["group_subtasks"]["bbh_cot_zeroshot"].size() == groups.size());
  CHECK(results["n-samples"].size() == groups.size());
  CHECK(results["groups"]["bbh_cot_zeroshot"].contains("exact_match,flexible-extract"));
  CHECK_FALSE(results["groups"]["bbh_cot_zeroshot"].contains("exact_match,strict-match"));
  // Filter by filter, as the harness writes them.
  std::istringstream lines(read_file(written / expected[1]));
  std::vector<std::string> filters;
  for (std::string line; std::getline(lines, line);)
    filters.push_back(parse_json(line, "samples")["filter"].get<std::string>());
  CHECK(std::is_sorted(filters.begin(), filters.end()));
  CHECK(filters.size() == 2 * results["n-samples"][first]["effective"].get<size_t>());
}
