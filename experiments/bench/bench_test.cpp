#include "experiments/bench/bench.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/parallel.h"
#include "experiments/bench/mmlu_sample.h"
#include "experiments/bench/operands.h"
#include "experiments/bench/peak_share.h"
#include "experiments/bench/peer_questions.h"
#include "experiments/config.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using namespace qlora::bench;
using Catch::Matchers::Contains;

TEST_CASE("quantiles interpolate and the spread is relative to the median") {
  const std::vector<double> values = {5, 1, 3, 2, 4};
  CHECK(median(values) == 3);
  CHECK(quantile(values, 0) == 1);
  CHECK(quantile(values, 1) == 5);
  CHECK(quantile({1, 2}, 0.25) == Approx(1.25));
  CHECK(spread(values) == Approx((4.6 - 1.4) / 3));
  CHECK(spread({7}) == 0);
}

TEST_CASE("things are timed in turn and every one of them once more to warm up") {
  std::string order;
  const auto seconds =
      time_in_turn({[&] { order += 'A'; }, [&] { order += 'B'; }}, {.least = 3, .most = 3, .seconds = 0}, 0);
  CHECK(order == "ABABABAB");
  REQUIRE(seconds.size() == 2);
  CHECK(seconds[0].size() == 3);
  CHECK(seconds[1].size() == 3);
  // A round that takes longer than the limit is enough, the first one too.
  order.clear();
  const auto one = time_in_turn({[&] { order += 'A'; }, [&] { order += 'B'; }}, {.limit = 0}, 0);
  CHECK(order == "AB");
  CHECK(one[1].size() == 1);
}

TEST_CASE("a paired row takes the ratio pair by pair and above 1 means that ours is faster") {
  // The machine became four times slower between the rounds; the ratio did not.
  const Row row = paired_row("x", "GFLOP/s", 8, {{1, 4, 1}, {2, 8, 2}}, 2);
  CHECK(*row.ours == 8);
  CHECK(*row.peer == 4);
  CHECK(*row.ratio == 2);
  CHECK(row.spread == 0);
}

TEST_CASE("a goal is met from the right side and says nothing without a ratio") {
  Row row;
  row.goal = 0.9;
  CHECK_FALSE(row.met());
  row.ratio = 0.95;
  CHECK(*row.met());
  row.lower_is_better = true;
  CHECK_FALSE(*row.met());
  row.ratio = 0.85;
  CHECK(*row.met());
  row.goal.reset();
  CHECK_FALSE(row.met());
}

TEST_CASE("a row comes back from its JSON and one that lacks something is refused") {
  Row row = missing_row("memory/peer", "MiB", 2, "peer absent");
  row.lower_is_better = true;
  row.goal = 0.22;
  Json json = to_json(row);
  CHECK(json["ratio"].is_null());
  for (const char* key : {"name", "ours", "peer", "ratio", "spread", "goal", "lower_is_better", "threads"})
    CHECK(json.contains(key));
  CHECK(to_json(row_from_json(json, "here")) == json);
  json.erase("spread");
  CHECK_THROWS_WITH(row_from_json(json, "here"), Contains("here") && Contains("spread"));
}

// Two threads whatever the machine has, and the plain loops: nothing here measures.
TEST_CASE("products of the benchmark are checked before they are timed") {
  Bench bench({.rows = {"none"}, .backend = "reference", .threads = 2}, [](const Row&) {});
  for (bool forward : {true, false})
    for (Operands operands : kAllOperands)
      for (Format format : {Format::dense, Format::nf4}) {
        INFO(name_of(format) << " " << name_of(operands) << (forward ? " forward" : " backward"));
        Products products(bench, std::make_shared<Weights>(bench, format, operands, 64, 128), 5, forward);
        CHECK(products.check().empty());
      }
  set_thread_count(default_thread_count());
}

TEST_CASE("goals for a share of the peak are held to multiply-adds, tiles have a row of their own") {
  Row measured = missing_row("small_row/m4/t1", "GFLOP/s", 1, "");
  measured.ours = 100;
  measured.spread = 0.1;
  Peaks peaks;
  peaks.f32 = 50e9;
  peaks.bf16 = 200e9;
  peaks.amx = 4000e9;
  const std::vector<Row> amx = shares_of_peak(measured, peaks, Operands::bf16_amx, 0.45);
  REQUIRE(amx.size() == 2);
  CHECK((amx[0].name == "small_row/m4/t1" && *amx[0].goal == 0.45));
  CHECK((*amx[0].peer == Approx(200) && *amx[0].ratio == Approx(0.5) && *amx[0].met()));
  CHECK(amx[0].against == "the multiply-adds' bf16 peak of this run");
  CHECK_THAT(amx[0].note, Contains("multiply-adds, 200 GFLOP/s") && Contains("tiles, 4000"));
  CHECK((amx[1].name == "small_row/m4/t1/of_tiles" && !amx[1].goal));
  CHECK((*amx[1].peer == Approx(4000) && *amx[1].ratio == Approx(0.025) &&
         amx[1].against == "AMX peak of this run"));
  CHECK((*amx[1].ours == 100 && amx[1].spread == 0.1 && amx[1].unit == "GFLOP/s"));

  const std::vector<Row> bf16 = shares_of_peak(measured, peaks, Operands::bf16, 0.45);
  REQUIRE(bf16.size() == 1);
  CHECK(
      (*bf16[0].ratio == Approx(0.5) && *bf16[0].goal == 0.45 && bf16[0].against == "bf16 peak of this run"));
  const std::vector<Row> f32 = shares_of_peak(measured, peaks, Operands::as_stored, 0.45);
  REQUIRE(f32.size() == 1);
  CHECK((*f32[0].ratio == Approx(2) && f32[0].against == "f32 peak of this run"));
  CHECK_THAT(f32[0].note, Contains("the goal is stated for bf16"));
  // Nothing was measured: no ratio, and no goal that seems to be missed.
  const std::vector<Row> nothing = shares_of_peak(measured, {}, Operands::as_stored, 0.45);
  CHECK((!nothing[0].ratio && !nothing[0].met()));
}

TEST_CASE("the benchmark tells what each family of rows took and guesses the rest where all are asked for") {
  std::vector<FamilyTime> times;
  Bench bench({.rows = {"decode"}, .backend = "reference", .threads = 1, .model = "nowhere"},
              [](const Row&) {});
  run_all(bench, [&](const FamilyTime& time) { times.push_back(time); });
  REQUIRE(times.size() == 1);
  CHECK((times[0].rows == "decode" && times[0].wall >= 0 && times[0].processor >= 0 && !times[0].left));
  CHECK(one_line({"packed", 61.4, 120.2, {}}) == "packed: took 61 s, 120 s of the processor");
  CHECK_THAT(one_line({"packed", 1, 1, 90}), Contains("; the rest takes about 90 s"));
  set_thread_count(default_thread_count());
}

TEST_CASE("values of peers join their rows pair by pair") {
  TemporaryFolder folder;
  const Path file = folder.path() / "peers.json";
  write_file(file,
             R"([{"row": "a", "peer_name": "other 1.0", "peer": [2, 4, 2], "ours": [4, 8, 6], "agree": true,
                        "compared": "losses are equal"},
                       {"row": "b", "peer_name": "other 1.0", "peer": [5], "agree": null, "compared": "cannot be"},
                       {"row": "d", "peer_name": "other 1.0", "peer": [2], "ours": [4], "agree": false,
                        "compared": "loss 1, the peer's 2"}])");
  std::vector<Row> seen;
  Bench bench({.backend = "reference", .threads = 1, .peers = file},
              [&](const Row& r) { seen.push_back(r); });
  bench.emit(missing_row("a", "x", 1, ""));
  Row measured = missing_row("b", "x", 1, "");
  measured.ours = 10;
  bench.emit(measured);
  bench.emit(missing_row("c", "x", 1, ""));
  bench.emit(missing_row("d", "x", 1, ""));
  REQUIRE(seen.size() == 4);
  CHECK(*seen[0].ratio == 2);
  CHECK(*seen[0].ours == 6);
  CHECK(seen[0].against == "other 1.0");
  CHECK(*seen[1].ratio == 2);
  CHECK_FALSE(seen[2].ratio);
  CHECK_THAT(seen[2].note, Contains("peer absent"));
  CHECK_THAT(seen[0].note, Contains("losses are equal"));
  CHECK_THAT(seen[1].note, Contains("cannot be"));
  // Nobody is faster at something else.
  CHECK_FALSE(seen[3].ratio);
  CHECK((seen[3].ours == 4.0 && seen[3].peer == 2.0));
  CHECK_THAT(seen[3].note, Contains("no ratio, for the sides disagree: loss 1, the peer's 2"));
  CHECK(to_json(seen[3])["ratio"].is_null());
  write_file(file, R"([{"row": "a", "peer_name": "other", "peer": [1], "ours": [1, 2], "agree": true,
                        "compared": ""}])");
  CHECK_THROWS_WITH(Bench({.backend = "reference", .peers = file}, [](const Row&) {}),
                    Contains("as many values"));
  write_file(file, R"([{"row": "a", "peer_name": "other", "peer": [1]}])");
  CHECK_THROWS_WITH(Bench({.backend = "reference", .peers = file}, [](const Row&) {}), Contains("agree"));
  set_thread_count(default_thread_count());
}

TEST_CASE("rows are chosen by how their names begin") {
  Bench bench({.rows = {"step/none", "memory"}, .backend = "reference", .threads = 1}, [](const Row&) {});
  CHECK(bench.wants("step/none/tuned"));
  CHECK(bench.wants("memory/plan"));
  CHECK_FALSE(bench.wants("step/checkpointing/tuned"));
  CHECK(bench.wants_any("step"));
  CHECK(bench.wants_any("step/none/tuned"));
  CHECK_FALSE(bench.wants_any("packed"));
  set_thread_count(default_thread_count());
}

TEST_CASE("the program measures a step of a tiny model in a process of its own") {
  Workbench work;
  const ProgramEnd end =
      work.run({"bench", "--rows", "memory/plan,step/none/tuned", "--quick", "--model", "model", "--threads",
                "1", "--backend", "reference", "--json", "--outcomes", "o.json"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  const Json rows = parse_json(end.out, "stdout").at("rows");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["name"] == "step/none/tuned");
  CHECK(rows[0]["ours"].get<double>() > 0);
  CHECK(rows[0]["ratio"].is_null());
  CHECK(rows[1]["name"] == "memory/plan");
  CHECK(rows[1]["ratio"].get<double>() > 0);
  const Json losses =
      parse_json(read_file(work.path() / "o.json"), "outcomes").at("step/none/tuned").at("losses");
  CHECK((losses.size() == 2 && losses[0] > 0));
  CHECK(work.run({"bench", "--rows", "nothing", "--backend", "reference"}).code == 2);
}

TEST_CASE("peers are asked the questions that the program is timed on") {
  Workbench work;
  const char* before = std::getenv("QLORA_TEST_DATA");
  const std::string restored = before != nullptr ? before : "";
  ::setenv("QLORA_TEST_DATA", (work.path() / "data").c_str(), 1);
  auto measure = [&] {
    const ProgramEnd end =
        work.run({"bench", "--rows", "mmlu/lm_eval,mmlu/prefix_loop", "--quick", "--model", "model",
                  "--threads", "1", "--backend", "reference", "--json", "--outcomes", "outcomes.json"});
    INFO(end.err);
    REQUIRE(end.code == 0);
    return parse_json(end.out, "stdout").at("rows");
  };
  Json rows = measure();
  REQUIRE(rows.size() == 2);
  CHECK((rows[0]["name"] == "mmlu/lm_eval/f32/all-threads" && rows[0]["ours"].is_null()));
  CHECK_THAT(rows[1]["note"].get<std::string>(), Contains("QLORA_TEST_DATA"));

  for (const std::string& subject : peer_questions(true).subjects)
    for (const char* split : {"dev", "val"}) {
      std::string lines;
      for (int i = 0; i < 5; ++i) lines += fmt::format("{} {}?,w,x,y,z,{}\n", split, i, "ABCD"[i % 4]);
      work.write(fmt::format("data/03_mmlu/original_csv/{}/{}_{}.csv", split, subject, split), lines);
    }
  rows = measure();
  REQUIRE(rows.size() == 2);
  for (const Json& row : rows) {
    CHECK(row["ours"].get<double>() > 0);
    CHECK(row["ratio"].is_null());
    CHECK_THAT(row["note"].get<std::string>(), Contains("peer absent"));
  }
  CHECK((rows[0]["goal"] == 8.0 && rows[1]["goal"] == 1.8));
  const Json computed = parse_json(read_file(work.path() / "outcomes.json"), "outcomes");
  for (const Json& row : rows) {
    const Json& log_probs = computed.at(row["name"].get<std::string>()).at("log_probs");
    CHECK((log_probs.size() == 12 && log_probs[0].size() == 4 && log_probs[0][0] < 0));
  }

  const Json asked = peer_questions_json({.quick = true, .model = work.path() / "model"});
  CHECK(asked["letters"].size() == 4);
  REQUIRE(asked["subjects"].size() == 4);
  const Json& marketing = asked["subjects"][2];
  CHECK((marketing["name"] == "marketing" && marketing["dev"].size() == 5 &&
         marketing["questions"].size() == 3));
  CHECK((marketing["questions"][1]["question"] == "val 1?" && marketing["questions"][1]["answer"] == 1));
  CHECK(marketing["questions"][1]["tokens"].size() > 100);
  ::setenv("QLORA_TEST_DATA", restored.c_str(), 1);
  if (before == nullptr) ::unsetenv("QLORA_TEST_DATA");
}

namespace {

// Questions of some subjects, whose contexts begin with as many tokens as the subject's shots.
MmluPlan plan_with(const std::vector<size_t>& sizes) {
  MmluPlan plan;
  for (size_t s = 0; s < sizes.size(); ++s)
    for (size_t q = 0; q < sizes[s]; ++q) {
      MmluItem& item = plan.items.emplace_back();
      item.subject = fmt::format("subject {}", s);
      item.index = static_cast<int64_t>(q);
      std::vector<int32_t> context(10 + s, static_cast<int32_t>(s));
      context.push_back(static_cast<int32_t>(100 + q));
      context.push_back(7);
      plan.contexts.push_back(context);
    }
  return plan;
}

}  // namespace

TEST_CASE("a sample of questions has one of every subject and each subject's share") {
  const MmluPlan plan = plan_with({8, 1, 91, 300});
  auto counts = [&](const MmluSample& sample) {
    std::vector<int> n(4);
    for (size_t place : sample.questions) ++n[static_cast<size_t>(plan.contexts[place][0])];
    return n;
  };
  CHECK(counts(sample_questions(plan, 0, 1)) == std::vector<int>{1, 1, 1, 1});
  CHECK(counts(sample_questions(plan, 40, 1)) == std::vector<int>{1, 1, 9, 29});
  CHECK(counts(sample_questions(plan, 1000, 1)) == std::vector<int>{8, 1, 91, 300});
  const MmluSample sample = sample_questions(plan, 40, 1);
  CHECK(std::is_sorted(sample.questions.begin(), sample.questions.end()));
  CHECK(std::set<size_t>(sample.questions.begin(), sample.questions.end()).size() == 40);
  CHECK(sample.questions == sample_questions(plan, 40, 1).questions);
  CHECK(sample.questions != sample_questions(plan, 40, 2).questions);
  REQUIRE(sample.one_each.size() == 4);
  for (size_t s = 0; s < 4; ++s)
    CHECK(plan.contexts[sample.questions[sample.one_each[s]]][0] == static_cast<int32_t>(s));
  const auto begun = beginnings(plan);
  REQUIRE(begun.size() == 4);
  CHECK(begun[0] == std::vector<int32_t>(10, 0));
  CHECK(begun[1].size() == 12);  // a single question: all but its last token
  CHECK(begun[3] == std::vector<int32_t>(13, 3));
}

TEST_CASE("prefix reuse is timed on questions of all subjects and says on which") {
  Workbench work;
  const char* before = std::getenv("QLORA_TEST_DATA");
  const std::string restored = before != nullptr ? before : "";
  ::setenv("QLORA_TEST_DATA", (work.path() / "data").c_str(), 1);
  auto measure = [&](std::vector<std::string> more) {
    std::vector<std::string> run = {"bench",     "--rows", "mmlu/val", "--model",   "model",
                                    "--threads", "1",      "--json",   "--backend", "reference"};
    run.insert(run.end(), more.begin(), more.end());
    const ProgramEnd end = work.run(run);
    INFO(end.err);
    REQUIRE(end.code == 0);
    return parse_json(end.out, "stdout").at("rows").at(0);
  };
  // Without the original questions: said, and nothing that a goal could be held against.
  work.write("datasets/samples/mmlu/dev/own_dev.csv", "d 0?,w,x,y,z,A\n");
  Json row = measure({"--quick"});
  CHECK((row["ours"].is_null() && row["ratio"].is_null()));
  for (const char* subject : {"anatomy", "marketing", "virology"})
    for (const char* split : {"dev", "val"}) {
      std::string lines;
      for (int i = 0; i < 5; ++i) lines += fmt::format("{} {}?,w,x,y,z,{}\n", split, i, "ABCD"[i % 4]);
      work.write(fmt::format("datasets/samples/mmlu/{}/{}_{}.csv", split, subject, split), lines);
      work.write(fmt::format("data/03_mmlu/original_csv/{}/{}_{}.csv", split, subject, split), lines);
    }
  row = measure({"--quick"});
  CHECK(row["goal"] == 4.2);
  CHECK(row["ratio"].is_number());
  CHECK_THAT(row["note"].get<std::string>(), Contains("the shots of 3 subjects alone") &&
                                                 Contains("3 questions") && Contains("3 whole; all 15"));
  row = measure({"--full"});
  CHECK_THAT(row["note"].get<std::string>(), Contains("timed: all 15 questions of 3 subjects, both ways"));
  std::filesystem::remove_all(work.path() / "data");
  row = measure({"--quick"});
  CHECK(row["goal"].is_null());
  CHECK_THAT(row["note"].get<std::string>(),
             Contains("NOT THE ORIGINAL QUESTIONS, for there is no") && Contains("datasets/samples/mmlu"));
  ::setenv("QLORA_TEST_DATA", restored.c_str(), 1);
  if (before == nullptr) ::unsetenv("QLORA_TEST_DATA");
}

TEST_CASE("a profile shows every kernel of a step and leaves no file behind") {
  Workbench work;
  work.write_sweep("sweep.yaml");
  std::vector<std::string> before, after;
  auto list = [&](std::vector<std::string>& names) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(work.path()))
      names.push_back(entry.path().string());
    std::sort(names.begin(), names.end());
  };
  work.run({"version"});  // so that the files of its output are there
  list(before);
  const ProgramEnd end = work.run({"profile", "sweep.yaml", "--steps", "2", "--threads", "1", "--json"});
  INFO(end.err);
  REQUIRE(end.code == 0);
  list(after);
  CHECK(before == after);
  const Json profile = parse_json(end.out, "stdout");
  CHECK(profile["runs"].size() == 2);
  CHECK(profile["steps"] == 2);
  CHECK(profile["micro_steps"] == 4);
  CHECK(profile["tokens"].get<int64_t>() > 0);
  double share = 0;
  std::string names;
  for (const Json& row : profile["kernels"]) {
    share += row["share"].get<double>();
    names += row["kernel"].get<std::string>() + ";";
  }
  CHECK(share == Approx(1).margin(1e-6));
  for (const char* kernel :
       {"linear nf4", "linear_backward nf4", "attention_backward", "adamw", "cross_entropy"})
    CHECK_THAT(names, Contains(kernel));
  CHECK_THAT(names, Contains("attention;") || Contains("attention " + best_compute_dtype() + ";"));
}
