// What the store is asked: leaderboards, runs, sweeps.
#include <algorithm>
#include <cctype>

#include "core/base/check.h"
#include "core/base/names.h"
#include "results/store_impl.h"

namespace qlora {

namespace {

constexpr const char* kRunInfo =
    "SELECT r.run_key, r.name, r.config, r.state, r.reason, v.attempts, ifnull(v.steps, 0), v.train_loss, "
    "r.created_at, r.finished_at FROM run r JOIN runs_view v USING (run_id)";

RunInfo run_info(const Statement& row) {
  RunInfo info;
  info.key = row.digest(0);
  info.name = row.text(1);
  info.config_json = row.text(2);
  info.state = run_state_from(row.text(3));
  info.reason = row.text(4);
  info.attempts = row.integer(5);
  info.last_step = row.integer(6);
  info.last_loss = row.optional_real(7);
  info.created_at = row.text(8);
  info.finished_at = row.text(9);
  return info;
}

std::vector<RunInfo> run_infos(Statement& rows) {
  std::vector<RunInfo> infos;
  while (rows.step()) infos.push_back(run_info(rows));
  return infos;
}

std::vector<std::string> names(const Database& db, const char* sql) {
  std::vector<std::string> known;
  Statement rows(db, sql);
  while (rows.step()) known.push_back(rows.text(0));
  return known;
}

bool is_key_prefix(const std::string& text) {
  return text.size() >= 4 && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

int64_t sweep_id(const Database& db, const std::string& name) {
  Statement find(db, "SELECT sweep_id FROM sweep WHERE name = ?");
  if (find.bind(name).step()) return find.integer(0);
  fail(ErrorKind::usage, "{}: {}", db.path().string(),
       unknown_name("sweep", name, names(db, "SELECT name FROM sweep ORDER BY name")));
}

}  // namespace

std::optional<RunInfo> Store::find_run(const Digest& run) const {
  Statement row(impl_->database, fmt::format("{} WHERE r.run_key = ?", kRunInfo));
  if (!row.bind(run).step()) return std::nullopt;
  return run_info(row);
}

RunInfo Store::resolve_run(const std::string& name_or_prefix) const {
  const Database& db = impl_->database;
  Statement by_name(db, fmt::format("{} WHERE r.name = ? ORDER BY r.run_id", kRunInfo));
  std::vector<RunInfo> found = run_infos(by_name.bind(name_or_prefix));
  if (found.empty() && is_key_prefix(name_or_prefix)) {
    Statement by_key(db,
                     fmt::format("{} WHERE substr(v.key, 1, length(?1)) = ?1 ORDER BY r.run_id", kRunInfo));
    found = run_infos(by_key.bind(lower(name_or_prefix)));
  }
  if (found.size() == 1) return found.front();
  QLORA_CHECK(!found.empty(), usage, "{}: {}", db.path().string(),
              unknown_name("run", name_or_prefix, names(db, "SELECT name FROM run ORDER BY name")));
  std::string keys;
  for (const RunInfo& info : found) keys += fmt::format("\n  {}  {}", hex(info.key).substr(0, 16), info.name);
  fail(ErrorKind::usage, "`{}` means {} runs; give more of the key:{}", name_or_prefix, found.size(), keys);
}

std::vector<AttemptRow> Store::open_attempts() const {
  Statement rows(
      impl_->database,
      "SELECT r.run_key, a.attempt, a.engine, a.pid, a.start_step, a.log_path, h.hostname, h.info, "
      "a.program, a.estimated_bytes, a.started_at FROM attempt a JOIN run r USING (run_id) LEFT JOIN host h "
      "USING (host_id) WHERE a.ended_at IS NULL ORDER BY a.started_at, a.run_id");
  std::vector<AttemptRow> open;
  while (rows.step()) {
    AttemptRow& row = open.emplace_back();
    row.run = rows.digest(0);
    row.attempt = rows.integer(1);
    row.start.engine = rows.text(2);
    row.start.pid = rows.integer(3);
    row.start.start_step = rows.integer(4);
    row.start.log_path = rows.text(5);
    row.start.hostname = rows.text(6);
    row.start.host_json = rows.text(7);
    row.start.program = rows.text(8);
    row.start.estimated_bytes = rows.optional_integer(9);
    row.started_at = rows.text(10);
  }
  return open;
}

Table Store::leaderboard(const std::string& sweep) const {
  const Database& db = impl_->database;
  constexpr const char* kSelect =
      "SELECT name, state, model, dataset, quant, lora_r, learning_rate, seed, steps, train_loss, "
      "loss_before, "
      "loss_after, mmlu, mmlu_se, mmlu_macro, mmlu_macro_se, mmlu_n, protocol, tokens, seconds, key "
      "FROM leaderboard l";
  if (sweep.empty()) return Statement(db, kSelect).table();
  // A base belongs to the sweep when one of its runs stands on it: by what was scored, or by the run's
  // configuration.
  Statement rows(db, fmt::format("{} WHERE EXISTS (SELECT 1 FROM sweep_run s JOIN run r USING (run_id) "
                                 "LEFT JOIN subject_model m USING (run_id) "
                                 "WHERE s.sweep_id = ? AND (r.run_id = l.run_id OR (l.run_id IS NULL AND "
                                 "((m.model = l.model AND m.quant = l.quant) OR "
                                 "(r.model = l.model AND r.quant = l.quant)))))",
                                 kSelect));
  return rows.bind(sweep_id(db, sweep)).table();
}

RunDetails Store::show(const std::string& name_or_prefix) const {
  const Database& db = impl_->database;
  RunDetails details;
  details.run = resolve_run(name_or_prefix);
  int64_t id = impl_->run_id(details.run.key);
  details.attempts =
      Statement(db,
                "SELECT attempt, outcome, start_step, started_at, ended_at, seconds, peak_bytes, "
                "estimated_bytes, exit_code, signal, error, log_path FROM attempt WHERE run_id = ? "
                "ORDER BY attempt")
          .bind(id)
          .table();
  details.curve =
      Statement(db,
                "SELECT step, loss, grad_norm, learning_rate, tokens, labels, seconds FROM curves "
                "WHERE run_id = ? ORDER BY step")
          .bind(id)
          .table();
  details.evaluations =
      Statement(db,
                "SELECT step, task, version, protocol, shots, metric, value, standard_error, n, "
                "started_at, seconds FROM scores WHERE run_id = ? ORDER BY step, task, "
                "evaluation_id, metric")
          .bind(id)
          .table();
  return details;
}

int64_t SweepStatus::count(RunState state) const {
  return std::count_if(runs.begin(), runs.end(), [&](const RunInfo& run) { return run.state == state; });
}

SweepStatus Store::sweep_status(const std::string& name) const {
  const Database& db = impl_->database;
  int64_t id = sweep_id(db, name);
  SweepStatus status;
  status.name = name;
  Statement created(db, "SELECT created_at FROM sweep WHERE sweep_id = ?");
  created.bind(id).step();
  status.created_at = created.text(0);
  Statement rows(db, fmt::format("{} JOIN sweep_run s USING (run_id) WHERE s.sweep_id = ? ORDER BY s.ordinal",
                                 kRunInfo));
  status.runs = run_infos(rows.bind(id));
  return status;
}

std::vector<std::string> Store::sweep_names() const {
  return names(impl_->database, "SELECT name FROM sweep ORDER BY sweep_id DESC");
}

}  // namespace qlora
