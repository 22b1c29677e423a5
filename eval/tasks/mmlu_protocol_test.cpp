// The protocols of MMLU, their readers and their averages, over small questions of our own.
#include "eval/tasks/mmlu_protocol.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "eval/tasks/harness_samples.h"
#include "eval/tasks/mmlu_harness.h"
#include "eval/tasks/mmlu_rows.h"
#include "eval/tasks/mmlu_test_tools.h"

using namespace qlora;
using test::LetterLm;
using test::LetterTokenizer;
using test::message_of;
using test::write_tree;

namespace {

// The second subject's first question.
struct Asked {
  explicit Asked(MmluOptions o) : options(std::move(o)) {
    write_tree(dir.path());
    data = read_mmlu(dir.path(), options);
  }
  MmluPrompt prompt() {
    return mmlu_prompt(options, data.subjects[1], data.subjects[1].questions[0], options.shots, tokenizer);
  }
  test::TemporaryFolder dir;
  LetterTokenizer tokenizer;
  MmluOptions options;
  MmluData data;
};

MmluOptions asking(std::string protocol, int64_t shots) {
  MmluOptions options;
  options.protocol = std::move(protocol);
  options.shots = shots;
  return options;
}

}  // namespace

TEST_CASE("the header of MMLU has one blank for lm_eval and two for the others") {
  for (const MmluProtocol& p : mmlu_protocols()) {
    CAPTURE(p.name);
    const std::string text = Asked(asking(p.name, 0)).prompt().text;
    CHECK((text.find("about  high school biology.\n\n") != std::string::npos) == p.wide_header);
    CHECK((text.find("about high school biology.\n\n") != std::string::npos) == !p.wide_header);
    CHECK(text.ends_with("\nD. d\nAnswer:"));
  }
}

TEST_CASE("lm_eval takes white space off a question and hendrycks keeps it") {
  Asked a(asking("lm_eval", 0));
  a.data.subjects[1].questions[0].question = " \n\u00a0what?\u3000\t";
  CHECK(a.prompt().text.find("\n\nwhat?\nA. ") != std::string::npos);
  a.options.protocol = "hendrycks";
  CHECK(a.prompt().text.find("\n\n \n\u00a0what?\u3000\t\nA. ") != std::string::npos);
}

TEST_CASE("a chat template wraps header and examples as lm-eval wraps them") {
  Asked a(asking("lm_eval", 1));
  a.options.chat_template = "chatml";
  a.options.system_instruction = "Be brief.";
  const std::string header =
      "The following are multiple choice questions (with answers) about high school biology.\n\n";
  const std::string shot = "dev question 0\nA. w\nB. x\nC. y\nD. z\nAnswer:";
  const std::string question = "one, \"1\"\nA. 0.50\nB. None\nC. c\nD. d\nAnswer:";
  const std::string system = "<|im_start|>system\nBe brief.\n\n" + header + "<|im_end|>\n";
  const std::string together =
      system + "<|im_start|>user\n" + shot + " D\n\n" + question + "<|im_end|>\n<|im_start|>assistant\n";
  const std::string in_turns = system + "<|im_start|>user\n" + shot +
                               "<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n" + "<|im_start|>user\n" +
                               question + "<|im_end|>\n<|im_start|>assistant\n";
  CHECK(a.prompt().text == in_turns);  // unless told
  CHECK(a.prompt().letter_gap.empty());
  a.options.fewshot_as_multiturn = false;
  CHECK(a.prompt().text == together);
  a.options.fewshot_as_multiturn = true;
  CHECK(a.prompt().text == in_turns);
  for (const char* name : {"hendrycks", "qlora"}) {
    MmluOptions other = a.options;
    other.protocol = name;
    other.fewshot_as_multiturn.reset();
    CHECK_FALSE(asks_in_turns(other));
  }
  a.options.chat_template = "none";
  CHECK(message_of([&] { a.prompt(); }).find("need a chat template") != std::string::npos);
  a.options.fewshot_as_multiturn.reset();
  CHECK(a.prompt().text.starts_with("Be brief.\n\nThe following"));
  CHECK_FALSE(asks_in_turns(a.options));
}

TEST_CASE("an over-long prompt is treated by its protocol's rule") {
  LetterTokenizer tokenizer;
  for (const MmluProtocol& p : mmlu_protocols()) {
    CAPTURE(p.name);
    Asked a(asking(p.name, 2));
    const auto whole = static_cast<int64_t>(a.prompt().text.size());
    MmluPlan plan = plan_mmlu(a.data, a.options, tokenizer, whole - 1);
    const MmluItem& item = plan.items[1];
    CHECK(item.prompt_tokens < whole);
    CHECK(plan.truncated_prompts > 0);
    if (p.overlong == MmluProtocol::Overlong::cut_left) {
      CHECK(item.shots == 2);
      CHECK(item.cut_tokens == 1);
      CHECK(plan.contexts[1].front() == 'h');  // of "The"
      CHECK(plan.contexts[1].back() == ':');
    } else {
      CHECK(item.shots == 1);
      CHECK(item.cut_tokens == 0);
    }
    if (p.overlong == MmluProtocol::Overlong::cut_right) {
      plan = plan_mmlu(a.data, a.options, tokenizer, 60);
      CHECK(plan.items[1].shots == 0);
      CHECK(plan.contexts[1].size() == 60);
      CHECK(plan.contexts[1].front() == 'T');
      CHECK(plan.cut_tokens > 0);
    }
  }
}

TEST_CASE("the letters of qlora are those of the bare letter and those of the others follow the prompt") {
  for (const MmluProtocol& p : mmlu_protocols()) {
    CAPTURE(p.name);
    Asked a(asking(p.name, 0));
    MmluPlan plan = plan_mmlu(a.data, a.options, a.tokenizer, 4096);
    const bool alone = p.letter == MmluProtocol::Letter::alone;
    CHECK(plan.letter_ids ==
          (alone ? std::array<int32_t, 4>{'A', 'B', 'C', 'D'} : std::array<int32_t, 4>{256, 257, 258, 259}));
    CHECK(plan.letters.empty());
    const std::string text = explain_mmlu(plan, 1, a.data, a.options, a.tokenizer);
    CHECK(text.find(a.prompt().text) != std::string::npos);
    CHECK(text.find(fmt::format("token {} ", plan.letter_ids[3])) != std::string::npos);
  }
}

TEST_CASE("groups of MMLU subjects are reported by both maps") {
  MmluReport report;
  MmluData data;
  MmluOptions options = asking("lm_eval", 0);
  int64_t n = 0;
  for (const char* name : {"abstract_algebra", "anatomy", "marketing"}) {
    data.subjects.push_back({name, {}, {}});
    for (int i = 0; i < 4; ++i, ++n) {
      MmluItem item;
      item.subject = name;
      item.index = i;
      item.correct = i < (name[0] == 'm' ? 1 : 3);
      report.items.push_back(item);
    }
  }
  summarize_mmlu(report, data, options);
  std::map<std::string, Accuracy> groups(report.groups.begin(), report.groups.end());
  REQUIRE(groups.size() == 4);
  CHECK(groups.at("stem@hendrycks").n == 4);
  CHECK(groups.at("stem@lm_eval").n == 8);
  CHECK(groups.at("other@hendrycks").value == Approx(0.5));
  CHECK(groups.at("other@lm_eval").value == Approx(0.25));
  CHECK(report.micro.value == Approx(7.0 / 12));
  // Each subject: p (1 - p) / 3 = 0.0625; pooled: sqrt(3 x 3 x 4 x 0.0625 / (12 - 3) / 12).
  CHECK(*report.micro.standard_error == Approx(std::sqrt(0.25 / 12)));
  CHECK_FALSE(report.macro_first);
  for (const char* name : {"astronomy", "anatomy", "virology"})
    CHECK_FALSE(mmlu_group_hendrycks(name).empty());
  CHECK(mmlu_group_lm_eval("alchemy").empty());
}

TEST_CASE("answers to MMLU are written in the layout of the harness") {
  Asked a(asking("lm_eval", 1));
  LetterLm lm(4096);
  const std::vector<SubjectIndex> who = {0};
  const MmluReport report = run_mmlu(lm, a.tokenizer, a.data, a.options, who).at(0);
  const MmluHarness mmlu = mmlu_harness("data", a.data, a.options, a.tokenizer, report);
  const std::vector<HarnessTask> tasks = mmlu.views();
  REQUIRE(tasks.size() == 2);
  HarnessInfo info;
  info.chat_template = "chatml";
  info.started = "2026-01-02T03:04:05.250Z";
  const Json results = parse_json(harness_results(info, a.tokenizer, tasks, mmlu.groups, {}), "results");
  const Json& biology = results["results"]["mmlu_high_school_biology"];
  CHECK(biology["acc,none"].get<double>() == Approx(1.0 / 3));
  CHECK((biology["name"] == "mmlu_high_school_biology" && biology["alias"] == "high_school_biology"));
  CHECK((biology["sample_len"] == 3 && !biology.contains("sample_count")));
  const Json& stem = results["groups"]["mmlu_stem"];
  CHECK((stem["name"] == "mmlu_stem" && stem["alias"] == "stem" && stem["acc,none"] == 0.5));
  CHECK((stem["sample_len"] == 4 && stem["sample_count"] == Json{{"acc,none", 4}}));
  CHECK((results["results"]["mmlu_stem"] == stem && results["groups"].size() == 2));
  CHECK(results["results"]["mmlu"]["acc,none"] == 0.5);
  CHECK(results["group_subtasks"] == Json{{"mmlu", Json::array({"mmlu_stem"})},
                                          {"mmlu_stem", {"mmlu_astronomy", "mmlu_high_school_biology"}}});
  CHECK(results["versions"] ==
        Json{{"mmlu", "2"}, {"mmlu_stem", "2"}, {"mmlu_astronomy", 1.0}, {"mmlu_high_school_biology", 1.0}});
  CHECK((results["n-shot"]["mmlu_stem"] == 1 && results["n-shot"].size() == 3));
  CHECK((results["higher_is_better"]["mmlu_stem"]["acc"] == true && results["n-samples"].size() == 2));
  CHECK((results["chat_template"] == "chatml" && results["system_instruction"].is_null()));
  std::istringstream lines(make_harness_samples(tasks[1]).lines);
  std::string line;
  std::getline(lines, line);
  const Json sample = parse_json(line, "samples");
  CHECK((sample["doc_id"] == 0 && sample["acc"] == 1.0));
  CHECK(sample["doc"]["choices"][1] == "None");
  CHECK(sample["arguments"]["gen_args_3"]["arg_0"] == a.prompt().text);
  CHECK(sample["arguments"]["gen_args_3"]["arg_1"] == " D");
  CHECK(sample["filtered_resps"] ==
        Json::parse(R"([["-1.0", "True"], ["-2.0", "False"], ["-2.0", "False"], ["-2.0", "False"]])"));
  CHECK(sample["target"] == "0");
}

TEST_CASE("groups of MMLU have the harness' names and aliases, and subjects that it lacks are MMLU's own") {
  Asked a(asking("lm_eval", 0));
  MmluReport report;
  for (const char* name : {"alchemy", "sociology"}) {
    a.data.subjects.push_back({name, {}, {}});
    report.items.emplace_back().subject = name;
  }
  summarize_mmlu(report, a.data, a.options);
  report.items.clear();
  const MmluHarness mmlu = mmlu_harness("data", a.data, a.options, a.tokenizer, report);
  REQUIRE(mmlu.groups.size() == 2);
  CHECK(mmlu.groups[0].members == std::vector<std::string>{"mmlu_social_sciences", "mmlu_alchemy"});
  CHECK((mmlu.groups[1].name == "mmlu_social_sciences" && mmlu.groups[1].alias == "social sciences"));
}

TEST_CASE("files of the harness say how many of a subject's questions were asked, and by which protocol") {
  Asked a(asking("qlora", 0));
  a.options.limit = 2;
  LetterLm lm(4096);
  const std::vector<SubjectIndex> who = {0};
  const MmluReport report = run_mmlu(lm, a.tokenizer, a.data, a.options, who).at(0);
  const MmluHarness mmlu = mmlu_harness("data", a.data, a.options, a.tokenizer, report);
  test::TemporaryFolder out;
  HarnessInfo info;
  info.model = "tiny";
  info.started = info.date = "2026-01-02T03:04:05Z";
  const Path folder = write_harness_files(out.path(), info, a.tokenizer, mmlu.views(), mmlu.groups);
  const Json results = parse_json(read_file(folder / "results_2026-01-02T03-04-05.json"), "results");
  CHECK(results["n-samples"]["mmlu_high_school_biology"] == Json{{"original", 3}, {"effective", 2}});
  CHECK((results["versions"]["mmlu"] == "qlora" && results["versions"]["mmlu_astronomy"] == "qlora"));
  for (const auto& [task, config] : results["configs"].items())
    CHECK(config["metadata"]["protocol"] == "qlora");
  CHECK(results["configs"].size() == 2);
  for (const auto& [subject, lines] : {std::pair("astronomy", 1), std::pair("high_school_biology", 2)}) {
    const std::string text =
        read_file(folder / fmt::format("samples_mmlu_{}_2026-01-02T03-04-05.jsonl", subject));
    CHECK(std::count(text.begin(), text.end(), '\n') == lines);
  }
}

TEST_CASE("a score at chance and one letter nearly always are warned of") {
  auto warnings = [](int questions, int right, int same) {
    MmluReport report;
    for (int i = 0; i < questions; ++i) {
      MmluItem item;
      item.subject = "anatomy";
      item.correct = i < right;
      item.prediction = i < same ? 2 : i % 4;
      report.items.push_back(item);
    }
    MmluData data;
    data.subjects.push_back({"anatomy", {}, {}});
    summarize_mmlu(report, data, asking("lm_eval", 0));
    std::string all;
    for (const std::string& warning : report.warnings) all += warning + "; ";
    return all;
  };
  CHECK(warnings(200, 120, 0).empty());
  CHECK(warnings(200, 50, 0).find("accuracy 0.250 is chance level") == 0);
  CHECK(warnings(200, 120, 180).find("letter bias: 185 of 200 predictions are C") == 0);
  CHECK(warnings(40, 10, 40).empty());  // too few to tell
}

TEST_CASE("MMLU rows of JSON give the same questions as the CSV tree") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options = asking("hendrycks", 1);
  const MmluData tree = read_mmlu(dir.path(), options);
  const Path rows = dir.path() / "rows";
  std::filesystem::create_directories(rows);
  std::string text, dev;
  text += R"({"question": "q", "subject": "astronomy", "choices": ["a", "b", "c", "d"], "answer": 0})"
          "\n\n";
  text += R"({"doc": {"question": "one, \"1\"", "subject": "high_school_biology", )"
          R"("choices": ["0.50", "None", "c", "d"], "answer": "A"}})"
          "\n";
  text +=
      R"({"question": "q2", "subject": "high school biology", "choices": ["a", "b", "c", "d"], "answer": 1})"
      "\n";
  text +=
      R"({"question": "q3", "subject": "high_school_biology", "choices": ["a", "b", "c", "d"], "answer": 2})"
      "\n";
  for (const char* s : {"astronomy", "high_school_biology"})
    dev += fmt::format(
        R"({{"question": "dev question 0", "subject": "{}", "choices": ["w", "x", "y", "z"], "answer": 3}})"
        "\n",
        s);
  write_file(rows / "test.jsonl", text);
  write_file(rows / "dev.jsonl", dev);
  const MmluData read = read_mmlu(rows, options);
  LetterTokenizer tokenizer;
  MmluPlan a = plan_mmlu(tree, options, tokenizer, 4096), b = plan_mmlu(read, options, tokenizer, 4096);
  CHECK(a.contexts == b.contexts);
  for (size_t i = 0; i < a.items.size(); ++i) CHECK(a.items[i].gold == b.items[i].gold);

  write_file(rows / "test.jsonl",
             text + R"({"question": "q", "subject": "astronomy", "choices": ["a"], "answer": 0})"
                    "\n");
  CHECK(message_of([&] { read_mmlu(rows, options); }) ==
        (rows / "test.jsonl").string() + ":6: `choices` must be a list of 4 texts, found 1 of them");
  write_file(rows / "test.jsonl",
             text +
                 R"({"question": "q", "subject": "astronomy", "choices": ["a", "b", "c", "d"], "answer": 4})"
                 "\n");
  CHECK(message_of([&] { read_mmlu(rows, options); }).find(":6: `answer` must be 0 to 3, found 4") !=
        std::string::npos);
  std::filesystem::remove(rows / "dev.jsonl");
  write_file(rows / "test.jsonl", text);
  CHECK(message_of([&] { read_mmlu(rows, options); }).find("1 shots asked for, 0 rows of astronomy found") !=
        std::string::npos);
}

TEST_CASE("MMLU rows of Parquet lie in the layouts of Hugging Face") {
  test::TemporaryFolder dir;
  const Path fixture = Path(test::source_folder()) / "eval/tasks/fixtures/mmlu.parquet";
  for (const char* folder : {"", "all", "astronomy"}) {
    CAPTURE(folder);
    test::TemporaryFolder tree;
    std::filesystem::create_directories(tree.path() / folder);
    for (const char* split : {"test", "validation", "dev"})
      std::filesystem::copy_file(fixture,
                                 tree.path() / folder / fmt::format("{}-00000-of-00001.parquet", split));
    for (const char* split : {"test", "val"}) {
      MmluOptions options = asking("lm_eval", 2);
      options.split = split;
      const MmluData data = read_mmlu(tree.path(), options);
      REQUIRE(data.subjects.size() == 1);
      CHECK(data.subjects[0].name == "astronomy");
      REQUIRE(data.subjects[0].questions.size() == 2);
      CHECK(data.subjects[0].questions[1].choices[3] == "β");
      CHECK(data.subjects[0].questions[1].answer == 2);
    }
  }
  const Path wrong = Path(test::source_folder()) / "eval/tasks/fixtures/mmlu_wrong_types.parquet";
  CHECK(message_of([&] { read_mmlu(wrong, asking("lm_eval", 0)); }) ==
        wrong.string() + ": row 1: `choices` must be a list of 4 texts, found string");
}

TEST_CASE("rendered prompts are asked as they stand and know their shots") {
  test::TemporaryFolder dir;
  Asked a(asking("qlora", 1));
  const std::string prompt = a.prompt().text;
  std::string escaped;
  for (char c : prompt) escaped += c == '\n' ? "\\n" : c == '"' ? "\\\"" : std::string(1, c);
  const Path file = dir.path() / "five_shot_mmlu_val.json";
  write_file(file, R"({"subject": "high_school_biology", "input": ")" + escaped +
                       R"(", "output": "A"})"
                       "\n");
  MmluOptions of_file = a.options;
  of_file.split = "val";
  MmluData data = read_mmlu(file, of_file);
  MmluPlan plan = plan_mmlu(data, of_file, a.tokenizer, 4096);
  REQUIRE(plan.items.size() == 1);
  CHECK(plan.contexts[0] == plan_mmlu(a.data, a.options, a.tokenizer, 4096).contexts[1]);
  MmluOptions other = asking("qlora", 0);
  other.split = "val";
  CHECK(message_of([&] { read_mmlu(file, other); }) ==
        file.string() + ": these are rendered prompts with 1 shots, but shots is 0; give --shots 1");
  other.split = "test";
  CHECK(message_of([&] { read_mmlu(file, other); }) ==
        file.string() +
            ": by its name it holds questions of split val, but the split is test; give --split val");
  other.protocol = "lm_eval";
  CHECK(message_of([&] { read_mmlu(file, other); }) ==
        file.string() +
            ": these are prompts as QLoRA rendered them, which only protocol qlora asks, but the protocol is "
            "lm_eval; give --protocol qlora, or as --data the tree of CSV files");
  CHECK(is_rendered(data));
  CHECK_FALSE(is_rendered(a.data));
  MmluOptions unsaid = asking("qlora", 1);
  CHECK(rendered_split(file, unsaid) == "val");
  CHECK(rendered_split(dir.path(), unsaid) == "test");  // one shot: no file of the folder's
  unsaid.shots = 5;
  CHECK(rendered_split(dir.path(), unsaid) == "val");
  write_file(dir.path() / "five_shot_mmlu_test.json", "{}");
  CHECK(rendered_split(dir.path(), unsaid) == "test");  // both are there
}

TEST_CASE("a subject whose rendered prompts were cut is asked with the shots of its file") {
  test::TemporaryFolder dir;
  const std::string example = R"(E\nAnswer: A\n\n)", question = R"(Q\nAnswer:", "output": "C"})";
  write_file(dir.path() / "five_shot_mmlu_test.derived.json",
             R"({"subject": "anatomy", "input": ")" + example + example + question + "\n" +
                 R"({"subject": "virology", "input": ")" + example + question + "\n");
  MmluOptions options = asking("qlora", 2);
  options.subjects = {"virology"};
  const MmluData data = read_mmlu(dir.path() / "five_shot_mmlu_test.derived.json", options);
  const MmluPlan plan = plan_mmlu(data, options, LetterTokenizer(), 4096);
  CHECK(plan.items.at(0).shots == 1);
  CHECK(plan.dropped_shots == 1);
}
