// Scores of runs on their way: every eval_steps, in packs, killed and gone on with, through the program
// itself.
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "experiments/run_file.h"
#include "experiments/scheduler.h"
#include "experiments/test_program.h"
#include "experiments/worker.h"
#include "results/sqlite.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// Run, task, step, metric and value of everything that was scored.
Json scores(const Workbench& bench, const std::string& db) {
  return query(bench, "SELECT name, task, step, metric, value FROM scores WHERE step > 0 ORDER BY 1, 2, 3, 4",
               db);
}

// Bytes of the trained adapters, sorted.
std::vector<std::string> adapters(const Path& out) {
  std::vector<std::string> bytes;
  for (const auto& run : std::filesystem::directory_iterator(out / "test"))
    if (const Path file = run.path() / "adapter" / "adapter_model.safetensors"; std::filesystem::exists(file))
      bytes.push_back(read_file(file));
  std::sort(bytes.begin(), bytes.end());
  return bytes;
}

// What trained runs have left as their trainer_state.json, sorted.
std::vector<std::string> histories(const Path& out) {
  std::vector<std::string> texts;
  for (const auto& run : std::filesystem::directory_iterator(out / "test"))
    if (const Path file = history_file(run.path()); std::filesystem::exists(file))
      texts.push_back(read_file(file));
  std::sort(texts.begin(), texts.end());
  return texts;
}

// "step NAME" of every entry but the training steps'; NAME is the first.
std::vector<std::string> logged_scores_of(const std::string& history) {
  std::vector<std::string> all;
  const Json state = parse_json(history, "trainer_state.json");
  for (const Json& entry : state["log_history"]) {
    if (entry.contains("loss")) continue;
    std::string name = "nothing";
    for (const char* known : {"eval_loss", "mmlu_test_accuracy"})
      if (entry.contains(known)) name = known;
    all.push_back(fmt::format("{} {}", entry["step"].get<int64_t>(), name));
  }
  return all;
}

int64_t kept_scores(const Path& out) {
  int64_t kept = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(out))
    kept += entry.path().filename().string().starts_with("score-") ? 1 : 0;
  return kept;
}

const std::string kQuestions = "mmlu_data: mmlu\nmmlu_split: test\nmmlu_dataset: mmlu-zs\n";
const std::string kScored = kQuestions + "do_mmlu_eval: true\ndo_eval: true\neval_steps: 2\n";

void change_sweep(const Workbench& bench, const std::string& from, const std::string& to) {
  std::string text = read_file(bench.path() / "s.yaml");
  text.replace(text.find(from), from.size(), to);
  bench.write("s.yaml", text);
}

ProgramEnd sweep(const Workbench& bench, const std::string& out, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"sweep", "run",      "s.yaml", "--set", "output_dir=" + out,
                                    "--db",  out + ".db"};
  words.insert(words.end(), more.begin(), more.end());
  return bench.run(words);
}

// The runs of s.yaml over alpaca.json as one job, to be done in this process.
Job job_of(const Workbench& bench, const std::string& out) {
  const std::string here = bench.path().string() + "/";
  const Sweep sweep = read_sweep(bench.path() / "s.yaml",
                                 {"model_name_or_path=" + here + "model", "dataset=" + here + "alpaca.json",
                                  "mmlu_data=" + here + "mmlu", "output_dir=" + here + out});
  Planner planner;
  WorkPlan plan = plan_work(planner, sweep, nullptr, size_t{1} << 40);
  mark_done(plan, nullptr, false);
  Job job;
  job.model = plan.runs.at(0).config.text("model_name_or_path");
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const PlannedRun& run = plan.runs[i];
    job.runs.push_back(
        {run.name, run.key, run.config, run.content, plan.folders[i], true, plan.folders[i] / "adapter", {}});
    std::filesystem::create_directories(plan.folders[i]);
  }
  for (const EvalNeed& e : plan.evals)
    job.runs.at(e.run).evals.push_back({e.key,
                                        e.spec->task,
                                        e.step,
                                        e.protocol,
                                        e.spec->data,
                                        e.data_hash,
                                        e.spec->mmlu,
                                        {},
                                        e.spec->options});
  return job;
}

}  // namespace

TEST_CASE("runs are scored every eval_steps and train as if they were not") {
  Workbench bench;
  bench.write_sweep("s.yaml", kScored);
  ProgramEnd end = sweep(bench, "scored");
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK_THAT(end.err, Contains("2 to train in 1 pack") && Contains("12 evaluations to do of 12") &&
                          Contains("alpaca: step 2: mmlu 0.") &&
                          Contains("dialogues: step 4: held-out loss "));
  // Of both runs at steps 2, 4 and 6: accuracy, its mean over subjects, the letter's loss; the held-out loss.
  const Json all = scores(bench, "scored.db");
  CHECK(all.size() == 2 * 3 * 4);
  CHECK((all[0]["metric"] == "loss" && all[3]["metric"] == "acc"));
  CHECK(kept_scores(bench.path() / "scored") == 0);
  // As a Trainer with qlora.py's callback logs them, also in the checkpoint of that step.
  const std::vector<std::string> logs = histories(bench.path() / "scored");
  REQUIRE(logs.size() == 2);
  const std::vector<std::string> every = {"2 eval_loss", "2 mmlu_test_accuracy",
                                          "4 eval_loss", "4 mmlu_test_accuracy",
                                          "6 eval_loss", "6 mmlu_test_accuracy"};
  for (const std::string& log : logs) CHECK(logged_scores_of(log) == every);
  for (const auto& run : std::filesystem::directory_iterator(bench.path() / "scored/test")) {
    if (!std::filesystem::exists(history_file(run.path()))) continue;
    const std::string saved = read_file(checkpoint_folder(run.path(), 4) / "trainer_state.json");
    CHECK(logged_scores_of(saved) == std::vector<std::string>(every.begin(), every.begin() + 4));
    const Json history = parse_json(saved, "log")["log_history"];
    const Json& mmlu = history.back();
    CHECK((mmlu.size() == 6 && mmlu["step"] == 4 && mmlu["epoch"] == history[history.size() - 3]["epoch"]));
    const double mean = (mmlu["mmlu_test_accuracy_anatomy"].get<double>() +
                         mmlu["mmlu_test_accuracy_astronomy"].get<double>()) /
                        2;
    CHECK(mmlu["mmlu_test_accuracy"].get<double>() == Approx(mean));
    CHECK(mmlu["mmlu_loss"].is_number());
  }
  CHECK_THAT(sweep(bench, "scored").err, Contains("nothing to do"));

  bench.write_sweep("s.yaml");
  REQUIRE(sweep(bench, "plain").code == 0);
  CHECK(adapters(bench.path() / "scored") == adapters(bench.path() / "plain"));

  // Each alone, every run has the scores that it had among others.
  bench.write_sweep("s.yaml", kScored);
  ProgramEnd alone = sweep(bench, "alone", {"--set", "dataset=alpaca.json", "--set", "run_name=alpaca"});
  INFO(alone.err);
  REQUIRE(alone.code == 0);
  const Json one = scores(bench, "alone.db");
  REQUIRE(one.size() == 3 * 4);
  for (size_t i = 0; i < one.size(); ++i) CHECK(one[i] == all[i]);
}

TEST_CASE("evaluations asked for later are made of the checkpoints that are left") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  REQUIRE(sweep(bench, "late").code == 0);
  bench.write_sweep("s.yaml", kQuestions + "do_mmlu_eval: true\neval_steps: 1\n");
  ProgramEnd late = sweep(bench, "late");
  INFO(late.err);
  CHECK(late.code == 0);
  // Of steps 1 to 6, save_steps has left 2 and 4, and the end.
  CHECK_THAT(late.err, Contains("0 to train in 1 pack") && Contains("6 evaluations to do of 12") &&
                           Contains("6 scores at earlier steps cannot be made any more"));
  const Json made = scores(bench, "late.db");
  CHECK(sweep(bench, "late").code == 0);

  ProgramEnd whole = sweep(bench, "whole");
  REQUIRE(whole.code == 0);
  const Json all = scores(bench, "whole.db");
  CHECK(made.size() == 2 * 3 * 3);
  CHECK(all.size() == 2 * 6 * 3);
  for (const Json& row : made) CHECK(std::find(all.begin(), all.end(), row) != all.end());
  for (const std::string& log : histories(bench.path() / "late"))
    CHECK(logged_scores_of(log) ==
          std::vector<std::string>{"2 mmlu_test_accuracy", "4 mmlu_test_accuracy", "6 mmlu_test_accuracy"});
}

TEST_CASE("a killed sweep neither loses a score of a step nor makes it twice") {
  Workbench bench;
  bench.write_sweep("s.yaml", kScored);
  change_sweep(bench, "max_steps: 6", "max_steps: 16");
  ProgramEnd calm = sweep(bench, "calm");
  INFO(calm.err);
  REQUIRE(calm.code == 0);
  // Killed again and again: the worker, the program, or both, wherever they stand.
  for (int round = 0;; ++round) {
    REQUIRE(round < 40);
    Program program(bench.path(),
                    {"sweep", "run", "s.yaml", "--set", "output_dir=killed", "--db", "killed.db"});
    std::this_thread::sleep_for(std::chrono::milliseconds(120 + 60 * round));
    const pid_t worker = program.worker();
    int status = 0;
    const bool ended = ::waitpid(program.pid(), &status, WNOHANG) != 0;
    if (ended) {
      CHECK(WEXITSTATUS(status) == 0);
      break;
    }
    if (worker > 0 && round % 3 != 1) ::kill(worker, SIGKILL);
    if (round % 3 != 0) ::kill(program.pid(), SIGKILL);
    program.wait();
  }
  CHECK(scores(bench, "killed.db") == scores(bench, "calm.db"));
  CHECK(query(bench, "SELECT count(*) AS n FROM partial_answer", "killed.db")[0]["n"] == 0);
  CHECK(histories(bench.path() / "killed") == histories(bench.path() / "calm"));
  CHECK(adapters(bench.path() / "killed") == adapters(bench.path() / "calm"));
}

TEST_CASE("questions that are not there are refused before anything is trained") {
  Workbench bench;
  bench.write_sweep("s.yaml", kScored);
  ProgramEnd end = sweep(bench, "out", {"--set", "mmlu_data=nowhere"});
  CHECK(end.code == 3);
  CHECK_THAT(end.err, Contains("do_mmlu_eval: nowhere is not there; give mmlu_data: PATH"));
  CHECK_FALSE(std::filesystem::exists(bench.path() / "out"));
}

TEST_CASE("a score told to a parent that died before storing it is told again") {
  Workbench bench;
  bench.write_sweep("s.yaml", kScored);
  const Job job = job_of(bench, "out");
  const RunJob& run = job.runs.at(0);

  // Its parent reads nothing any more after step 1; the worker notices after step 3.
  auto scored = [](const Json& message) {
    return fmt::format("{} {}", message["row"]["task"]["name"].get<std::string>(),
                       message["row"]["step"].get<int64_t>());
  };
  std::vector<std::string> lost, told;
  bool gone = false;
  const bool whole = do_job(
      job,
      [&](const std::string& line) {
        const Json message = parse_json(line, "message");
        if (message["type"] == "scored") lost.push_back(scored(message));
        gone = gone || (message["type"] == "step" && message["row"]["step"] == 3);
      },
      [&] { return gone; });
  CHECK_FALSE(whole);
  CHECK(lost == std::vector<std::string>{"loss 2", "mmlu 2"});
  std::filesystem::remove_all(checkpoint_folder(run.folder, 2));
  REQUIRE(latest_step(run.folder) == 3);

  CHECK(do_job(
      job,
      [&](const std::string& line) {
        const Json message = parse_json(line, "message");
        if (message["type"] == "scored") told.push_back(scored(message));
      },
      [] { return false; }));
  CHECK(told == std::vector<std::string>{"loss 2", "mmlu 2", "loss 4", "mmlu 4", "loss 6", "mmlu 6"});
  CHECK(logged_scores_of(read_file(history_file(run.folder))).size() == 6);
}

TEST_CASE("scores that are stored come back into the log of a run that has lost their steps") {
  Workbench bench;
  bench.write_sweep("s.yaml", kScored);
  REQUIRE(sweep(bench, "out").code == 0);
  const std::vector<std::string> before = histories(bench.path() / "out");
  REQUIRE(before.size() == 2);
  // As if everything had been killed right after step 4 was scored, before its checkpoint was on the disk.
  Database(bench.path() / "out.db", Database::Mode::write)
      .exec("UPDATE run SET state = 'killed', reason = 'signal 9', finished_at = NULL");
  std::vector<Path> runs;
  for (const char* name : {"alpaca", "dialogues"})
    for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "out/test"))
      if (entry.path().filename().string().ends_with(name)) runs.push_back(entry.path());
  REQUIRE(runs.size() == 2);
  for (const Path& run : runs)
    for (const Path& lost : {run / "adapter", history_file(run), checkpoint_folder(run, 4)})
      CHECK(std::filesystem::remove_all(lost) > 0);

  const ProgramEnd again = sweep(bench, "out");
  INFO(again.err);
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("2 to train") && Contains("0 evaluations to do of 12") &&
                            Contains("alpaca: goes on after step 2"));
  CHECK(histories(bench.path() / "out") == before);
  for (const Path& run : runs)
    CHECK(logged_scores_of(read_file(checkpoint_folder(run, 4) / "trainer_state.json")).size() == 4);
}

TEST_CASE("a run that a stop has saved waits there for runs with longer steps, and loses no score") {
  Workbench bench;
  bench.write_sweep("s.yaml", "do_eval: true\neval_steps: 3\n");
  change_sweep(bench, "gradient_accumulation_steps: 2", "gradient_accumulation_steps: [1, 4]");
  auto scores_into = [](std::vector<std::string>& all) {
    return [&all](const std::string& line) {
      const Json message = parse_json(line, "message");
      if (message["type"] != "scored") return;
      const Json& row = message["row"];
      all.push_back(Json{row["subject"]["key"], row["step"], row["aggregates"]}.dump());
    };
  };
  auto never = [] { return false; };
  std::vector<std::string> calm, stopped;
  REQUIRE(do_job(job_of(bench, "calm"), scores_into(calm), never));
  CHECK(calm.size() == 2 * 2);

  // The short run's first step asks for the stop; the long run is three micro-batches from its own.
  const Job job = job_of(bench, "stopped");
  REQUIRE(job.runs.size() == 2);
  bool asked = false;
  CHECK_FALSE(do_job(
      job, [&](const std::string& line) { asked = asked || parse_json(line, "message")["type"] == "step"; },
      [&] { return asked; }));
  for (const RunJob& run : job.runs) CHECK(latest_step(run.folder) == 1);
  CHECK(do_job(job, scores_into(stopped), never));
  CHECK(stopped == calm);
}
