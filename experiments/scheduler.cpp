#include "experiments/scheduler.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/base/log.h"
#include "experiments/doctor.h"
#include "experiments/eval_rows.h"
#include "experiments/leaderboard.h"
#include "experiments/pack_runner.h"
#include "experiments/place.h"
#include "experiments/run_file.h"
#include "experiments/stored_votes.h"
#include "experiments/terminal.h"
#include "experiments/tournament.h"
#include "kernels/backend.h"

namespace qlora {
namespace {

constexpr int kLockSeconds = 600;  // how long a stopped sweep's worker may take to save and end

class SweepRunner {
 public:
  SweepRunner(const Sweep& sweep, const SweepOptions& options)
      : sweep_(sweep),
        options_(options),
        progress_(stderr, options.quiet, kPlainLineSeconds),
        place_(place_of(options.backend, options.memory)),
        planner_(place_.device) {}

  int run() {
    set_log_sink([this](LogLevel level, std::string_view text) {
      if (level == LogLevel::warning) progress_.note("warning: " + std::string(text));
    });
    check_place_of_store();
    tournaments_ = read_tournaments_of(sweep_.tournaments);
    // A store that is there is brought up to date, or refused, before anything else; a new one is made only
    // once the sweep is known to be good.
    std::optional<Store> opened;
    if (std::filesystem::exists(options_.db)) opened = Store::open(options_.db);
    plan_ = plan_work(planner_, sweep_, opened ? &*opened : nullptr, place_.budget);
    mark_done(plan_, opened ? &*opened : nullptr, options_.retry_failed);
    pack_work(planner_, plan_, place_.budget);  // refuses what is too large
    for (const StudyNeed& study : plan_.answers.studies)
      if (study.missing > 0) check_can_ask(study.setup);
    std::filesystem::create_directories(sweep_folder(sweep_));
    FileLock lock(sweep_folder(sweep_) / "lock");
    take(lock);
    if (!opened) opened = Store::open(options_.db);
    Store& store = *opened;
    // What the last worker did while we waited for the lock counts too.
    mark_done(plan_, &store, options_.retry_failed);
    const std::vector<PlannedPack> packs = pack_work(planner_, plan_, place_.budget);
    announce(packs);
    declare(store);
    settle_lost_attempts(store);
    catch_stop_signals();
    for (const PlannedPack& pack : packs)
      if (stop_signals() == 0) run_pack(store, lock, pack);
    mark_answers(plan_.answers, &store);
    write_answers(store);
    for (StudyNeed& study : plan_.answers.studies)
      if (stop_signals() == 0) judge(store, lock, study);
    rate_tournaments(store);
    return finish(store);
  }

 private:
  void check_place_of_store() const {
    Path folder = options_.db.has_parent_path() ? options_.db.parent_path() : Path(".");
    QLORA_CHECK(std::filesystem::is_directory(folder), usage, "--db {}: there is no folder {}",
                options_.db.string(), folder.string());
  }

  void announce(const std::vector<PlannedPack>& packs) {
    to_answer_ = plan_.answers.to_answer();
    to_judge_ = plan_.answers.to_judge();
    if (options_.json)
      print_json({{"type", "launch"},
                  {"sweep", sweep_.name},
                  {"db", options_.db.string()},
                  {"plan", Json::parse(plan_json(sweep_, plan_, packs, place_.budget))}});
    if (options_.quiet) return;
    progress_.note(fmt::format("sweep {}: {} runs, {} to train in {} pack{}; {} evaluations to do of {}",
                               sweep_.name, plan_.runs.size(), plan_.to_train(), packs.size(),
                               packs.size() == 1 ? "" : "s", plan_.to_score(), plan_.evals.size()));
    if (const std::string gone = plan_.note_of_gone(); !gone.empty()) progress_.note("  " + gone);
    for (const std::string& line : describe_answers(plan_.answers)) progress_.note("  " + line);
    if (!place_.note.empty()) progress_.note("  " + place_.note);
    if (plan_.to_train() == 0) return;
    for (const std::string& line : describe_settings(plan_)) progress_.note("  " + line);
    for (const std::string& line : describe_choices(packs)) progress_.note("  " + line);
    progress_.note("  results in " + options_.db.string() + ", adapters below " +
                   sweep_folder(sweep_).string());
  }

  // While the sweep's process lives, the sweep is its own. A worker whose parent was killed saves and ends by
  // itself: that is worth waiting for.
  void take(FileLock& lock) {
    std::string name = (sweep_folder(sweep_) / "lock").string();
    for (int waited = 0; !lock.try_lock(); ++waited) {
      QLORA_CHECK(lock.holder() == 0, failure, "process {} is running sweep {} ({} is locked)", lock.holder(),
                  sweep_.name, name);
      QLORA_CHECK(waited < kLockSeconds * 10, failure,
                  "the last worker of sweep {} does not end ({} is locked)", sweep_.name, name);
      if (waited == 5) progress_.note("waiting for the sweep's last worker to save and end");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  void declare(Store& store) {
    std::vector<RunRow> rows;
    for (const PlannedRun& run : plan_.runs)
      rows.push_back({run.key, run.name, canonical(run.config.to_json())});
    store.declare_sweep(sweep_.name, sweep_.source, rows);
  }

  // With the lock in hand, attempts of our runs that are still open belong to processes that are gone.
  void settle_lost_attempts(Store& store) {
    std::set<Digest> ours;
    for (const PlannedRun& run : plan_.runs) ours.insert(run.key);
    for (const AttemptRow& attempt : store.open_attempts()) {
      if (!ours.contains(attempt.run)) continue;
      bool lives = attempt.start.hostname == machine_info().hostname &&
                   lives_since(static_cast<pid_t>(attempt.start.pid), attempt.started_at);
      QLORA_CHECK(!lives, failure, "run {} is being trained by process {}", hex(attempt.run).substr(0, 12),
                  attempt.start.pid);
      AttemptEnd end;
      end.outcome = "lost";
      store.end_attempt(attempt.run, attempt.attempt, end);
      std::optional<RunInfo> info = store.find_run(attempt.run);
      if (info && info->state == RunState::running)
        store.set_run_state(attempt.run, RunState::killed, "lost");
    }
  }

  static EvalJob eval_job(const Store& store, const EvalNeed& need) {
    return {need.key,          need.spec->task, need.step,       need.protocol,
            need.spec->data,   need.data_hash,  need.spec->mmlu, store.partial_answers(need.key),
            need.spec->options};
  }

  std::vector<std::pair<int64_t, StepScores>> stored_scores(const Store& store, size_t run) const {
    std::vector<std::pair<int64_t, StepScores>> all;
    for (const EvalNeed& eval : plan_.evals) {
      if (eval.run != run || eval.of_base || !eval.done) continue;
      StepScores scores =
          logged_scores(plan_.runs[run].config, eval_job(store, eval), store.aggregates(eval.key));
      if (!scores.empty()) all.emplace_back(eval.step, std::move(scores));
    }
    return all;
  }

  Path adapter_of(const PlannedRun& run) const {
    return plan_.folders[static_cast<size_t>(&run - plan_.runs.data())] / "adapter";
  }

  Job make_job(Store& store, const PlannedPack& pack) const {
    Job job;
    const PlannedRun& first = *pack.runs[0];
    job.model = first.config.text("model_name_or_path");
    job.base_name = base_name(job.model);
    job.base_key = first.base;
    job.backend = place_.backend;
    job.threads = options_.threads;
    for (const PlannedRun* run : pack.runs) {
      auto index = static_cast<size_t>(run - plan_.runs.data());
      RunJob& r = job.runs.emplace_back();
      r.name = run->name;
      r.key = run->key;
      r.config = run->config.with("gradient_checkpointing", std::string(name_of(pack.checkpointing)));
      r.content = run->content;
      r.folder = plan_.folders[index];
      r.train = plan_.needs[index] == RunNeed::train;
      r.adapter = r.folder / "adapter";
      for (const EvalNeed& eval : plan_.evals)
        if (eval.run == index && plan_.is_open(eval))
          (eval.of_base ? job.base_evals : r.evals).push_back(eval_job(store, eval));
      if (r.train) r.scored = stored_scores(store, index);
      for (const AnswerNeed& need : plan_.answers.answers)
        if (need.run == index && plan_.is_open(need))
          (need.of_base ? job.base_answers : r.answers).push_back(answer_job(store, need));
    }
    return job;
  }

  static std::string base_name(const Path& model) {
    Path last = model.filename().empty() ? model.parent_path().filename() : model.filename();
    return last.string();
  }

  PackRunner::Options runner_options(size_t memory, const FileLock& lock) const {
    return {.memory = memory,
            .context = place_.device.context,
            .json = options_.json,
            .folder = sweep_folder(sweep_),
            .lock = lock.descriptor()};
  }

  void run_pack(Store& store, const FileLock& lock, const PlannedPack& pack) {
    Job job = make_job(store, pack);
    std::erase_if(job.runs, [&](const RunJob& run) {
      bool asked = !run.evals.empty() || !run.answers.empty();
      bool missing = !run.train && asked && !std::filesystem::exists(run.adapter);
      if (missing)
        failures_.push_back(
            fmt::format("run {} is trained, but its adapter is not at {}", run.name, run.adapter.string()));
      return missing;
    });
    if (job.runs.empty()) return;
    for (const RunJob& run : job.runs) {
      if (!run.train) continue;
      std::filesystem::create_directories(run.folder);
      write_run_file(run.folder, {run.name, run.key, job.base_key, run.config});
    }
    const MemoryPlan& memory = pack.memory;
    job.device = memory.options;
    job.room = memory.passing;
    job.lasting = memory.lasting;
    job.offload = memory.offloaded;
    for (const std::string& line : describe_memory(place_, memory)) progress_.note_once("  " + line);
    PackRunner runner(store, progress_, job, runner_options(memory.bytes(), lock));
    run_worker(runner);
  }

  void run_worker(PackRunner& runner) {
    runner.run();
    failures_.insert(failures_.end(), runner.failures().begin(), runner.failures().end());
    if (failed_kind_ == 0) failed_kind_ = runner.failed_kind();
  }

  // Whole answers as files, beside the runs.
  void write_answers(const Store& store) {
    for (const AnswerNeed& need : plan_.answers.answers)
      if (need.done())
        write_answer_files(answers_folder(*need.set), need.set->file, need.settings,
                           stored_answers(store, need));
  }
  Path answers_folder(const QuestionSet& set) const {
    return sweep_folder(sweep_) / "answers" / set.file.name;
  }

  // Asks what a judge has not said about the answers that are there, and stores its votes once all are there.
  void judge(Store& store, const FileLock& lock, StudyNeed& study) {
    const std::vector<JudgeAsk> asks = asks_of(plan_.answers, study, store);
    if (asks.empty()) {
      failures_.push_back(fmt::format("judge {}: fewer than two systems have answered {}",
                                      name_of(study.setup), study.set->file.name));
      judged_[name_of(study.setup)].push_back({&study, {}});  // nothing of it is there: no rating either
      return;
    }
    if (!missing_asks(journal_votes(study.folder), asks).empty()) {
      Job job;
      job.backend = place_.backend;
      job.threads = options_.threads;
      job.room = study.room;
      job.lasting = study.lasting;
      job.judging = JudgeJob{study.setup, asks, study.folder};
      PackRunner runner(store, progress_, job, runner_options(study.memory, lock));
      run_worker(runner);
    }
    const std::vector<JudgmentFile> votes = votes_for(journal_votes(study.folder), asks);
    study.missing = static_cast<int64_t>(missing_asks(votes, asks).size());
    if (study.missing == 0) {
      std::vector<VoteFile> rows;
      for (const JudgmentFile& file : votes) rows.push_back(vote_file(file));
      store.write_votes(rows);
    }
    judged_[name_of(study.setup)].push_back({&study, votes});
  }

  // A judge's votes, once all its sets are judged whole; else none. Questions of several sets may have equal
  // ids.
  std::vector<JudgmentFile> votes_by(const std::string& judge) const {
    std::vector<JudgmentFile> all;
    const auto found = judged_.find(judge);
    if (found == judged_.end()) return all;
    for (const auto& [study, files] : found->second) {
      if (study->missing > 0) return {};
      for (JudgmentFile file : files) {
        if (found->second.size() > 1)
          for (Vote& vote : file.votes) vote.item = study->set->file.name + "/" + vote.item;
        all.push_back(std::move(file));
      }
    }
    return all;
  }

  void rate_tournaments(Store& store) {
    store.flush();
    for (size_t i = 0; i < sweep_.tournaments.size(); ++i) {
      const TournamentSpec& spec = sweep_.tournaments[i];
      if (stop_signals() > 0) return;
      try {
        if (!spec.judge.empty()) {
          std::vector<JudgmentFile> votes = votes_by(spec.judge);
          if (votes.empty()) continue;  // why is told already
          tournaments_.emplace(i, Tournament(spec, std::move(votes)));
        }
        rate(store, tournaments_.at(i));
      } catch (const Error& e) {
        failures_.push_back(fmt::format("tournament {}: {}", spec.name, e.what()));
      }
    }
  }

  void rate(Store& store, const Tournament& tournament) {
    if (store.has_tournament(tournament.key())) return;
    progress_.phase("rating tournament " + tournament.name(), 0, 0);
    TournamentRatings report;
    {
      StopEndsAtOnce at_once;
      report = tournament.rate();
    }
    store.write_tournament(tournament.row(report));
    ++rated_;
  }

  int finish(Store& store) {
    store.flush();
    progress_.clear();
    for (size_t i = 0; i < plan_.runs.size(); ++i)
      if (plan_.needs[i] == RunNeed::failed_before)
        failures_.push_back(fmt::format("run {} failed before ({}); --retry-failed runs it again",
                                        plan_.runs[i].name, plan_.reasons[i]));
    for (const std::string& failure : failures_) progress_.note("failed: " + failure);
    int signal = last_stop_signal();
    const int code = signal != 0 ? 128 + signal : failures_.empty() ? 0 : code_of_failure();
    bool nothing = plan_.to_train() == 0 && plan_.to_score() == 0 && to_answer_ == 0 && to_judge_ == 0 &&
                   rated_ == 0 && failures_.empty();
    Table board = store.leaderboard(sweep_.name);
    if (options_.json) {
      Json ratings = Json::object();
      for (const auto& [place, t] : tournaments_) ratings[t.name()] = to_json(store.ratings_of(t.key()));
      print_json({{"type", "done"},
                  {"sweep", sweep_.name},
                  {"exit_code", code},
                  {"nothing_to_do", nothing},
                  {"failures", failures_},
                  {"leaderboard", to_json(board)},
                  {"ratings", ratings}});
      return code;
    }
    if (signal != 0) {
      progress_.note("stopped; the same command goes on from here");
      return code;
    }
    if (nothing) progress_.note("nothing to do: every run is trained and every evaluation is stored");
    print_results(store, board);
    return code;
  }

  // Of a sweep, of which the rest is there; of one run, of which nothing else was asked.
  int code_of_failure() const {
    return options_.one_run && failed_kind_ != 0 ? failed_kind_ : static_cast<int>(ErrorKind::failure);
  }

  void print_results(const Store& store, const Table& board) const {
    fmt::print("\n{}", render_leaderboard(board));
    for (const QuestionSet& set : plan_.answers.sets)
      fmt::print("\nanswers to {} questions of {}: {}\n", set.file.questions.size(), set.file.name,
                 answers_folder(set).string());
    for (const auto& [place, t] : tournaments_)
      fmt::print("\ntournament {}\n{}", t.name(), render_ratings(store.ratings_of(t.key())));
    for (const PlannedRun& run : plan_.runs) {
      std::optional<RunInfo> info = store.find_run(run.key);
      if (!info || info->state != RunState::finished) continue;
      fmt::print("\n{}", next_steps(sweep_, run, adapter_of(run), options_));
      break;
    }
    std::fflush(stdout);
  }

  static void print_json(const Json& json) {
    std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    std::fputs((text + "\n").c_str(), stdout);
    std::fflush(stdout);
  }

  const Sweep& sweep_;
  SweepOptions options_;
  Progress progress_;
  Place place_;
  Planner planner_;
  WorkPlan plan_;
  std::map<size_t, Tournament> tournaments_;  // by their place in the sweep
  std::map<std::string, std::vector<std::pair<const StudyNeed*, std::vector<JudgmentFile>>>> judged_;
  int64_t rated_ = 0, to_answer_ = 0, to_judge_ = 0;
  std::vector<std::string> failures_;
  int failed_kind_ = 0;  // of the first worker that an error ended
};

}  // namespace

int run_sweep(const Sweep& sweep, const SweepOptions& options) {
  return SweepRunner(sweep, options).run();
}

}  // namespace qlora
