#include "results/store.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "results/migrate.h"
#include "results/store_impl.h"

namespace qlora {

namespace {

constexpr size_t kStepsPerTransaction = 100;
constexpr std::chrono::seconds kFlushInterval{1};

int newest_version() {
  return migrations().back().version;
}

void insert_run(const Database& database, const RunRow& row) {
  Json config = parse_json(row.config_json, "configuration of run " + row.name);
  QLORA_CHECK(config.is_object(), usage, "configuration of run {}: expected a JSON object", row.name);
  Statement(database,
            "INSERT INTO run(run_key, name, config, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
      .run(row.key, row.name, canonical(config), now_utc());
}

// NaN becomes NULL when it is bound; infinities are made NULL here, so that sums and means stay numbers.
std::optional<double> finite(double value) {
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

void change_state(const Database& db, int64_t run, RunState state, const std::string& reason) {
  Transaction transaction(db);
  Statement current(db, "SELECT state, name FROM run WHERE run_id = ?");
  current.bind(run).step();
  bool was_finished = current.text(0) == "finished", finished = state == RunState::finished;
  QLORA_CHECK(!was_finished || finished, failure, "run {} has finished and cannot become {}", current.text(1),
              name_of(state));
  if (was_finished) return;
  Statement(db, "UPDATE run SET state = ?, reason = ?, finished_at = ? WHERE run_id = ?")
      .run(name_of(state), reason, finished ? std::optional(now_utc()) : std::nullopt, run);
  transaction.commit();
}

}  // namespace

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;

Store::~Store() {
  if (!impl_) return;
  try {
    impl_->flush();
  } catch (const Error&) {
    // A destructor has nobody to tell; see the header.
  }
}

Store Store::open(const Path& path) {
  FileSystem kind = file_system_of(path);
  QLORA_CHECK(!std::filesystem::is_directory(path), data, "{}: is a folder, not a results store",
              path.string());
  Database database(path, Database::Mode::create);
  // Before anything is written, so that a foreign file stays as it is.
  store_version(database, newest_version());
  set_journal(database, kind);
  migrate(database);
  return Store(std::make_unique<Impl>(std::move(database)));
}

Store Store::open_read_only(const Path& path) {
  QLORA_CHECK(std::filesystem::exists(path), data,
              "{}: there is no such results store; `qlora sweep run` makes one, --db FILE names another",
              path.string());
  Database database(path, Database::Mode::read);
  int version = store_version(database, newest_version());
  QLORA_CHECK(version == newest_version(), data,
              "{}: a results store of schema version {}, this program reads {}; a writing command such as "
              "`qlora sweep run` brings it up to date",
              path.string(), version, newest_version());
  return Store(std::make_unique<Impl>(std::move(database)));
}

std::optional<Store> Store::open_if_filled(const Path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  {
    Database database(path, Database::Mode::read);
    if (store_version(database, newest_version()) == 0) return std::nullopt;
  }
  return open_read_only(path);
}

const Path& Store::path() const {
  return impl_->database.path();
}

int Store::version() const {
  return static_cast<int>(impl_->database.integer("PRAGMA user_version"));
}

// ---------- sweeps and runs

void Store::declare_sweep(const std::string& name, const std::string& yaml, std::span<const RunRow> rows) {
  std::set<Digest> keys;
  for (const RunRow& row : rows)
    QLORA_CHECK(keys.insert(row.key).second, usage, "sweep {}: run {} has the configuration of another run",
                name, row.name);
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  std::string now = now_utc();
  Statement(db,
            "INSERT INTO sweep(name, yaml, created_at, declared_at) VALUES (?1, ?2, ?3, ?3) "
            "ON CONFLICT(name) DO UPDATE SET yaml = excluded.yaml, declared_at = excluded.declared_at")
      .run(name, yaml, now);
  Statement find(db, "SELECT sweep_id FROM sweep WHERE name = ?");
  find.bind(name).step();
  int64_t sweep = find.integer(0);
  Statement(db, "DELETE FROM sweep_run WHERE sweep_id = ?").run(sweep);
  Statement link(db, "INSERT INTO sweep_run(sweep_id, ordinal, run_id) VALUES (?, ?, ?)");
  int64_t ordinal = 0;
  for (const RunRow& row : rows) {
    insert_run(db, row);
    link.run(sweep, ordinal++, impl_->run_id(row.key));
  }
  transaction.commit();
}

void Store::declare_run(const RunRow& row) {
  impl_->flush();
  insert_run(impl_->database, row);
}

void Store::set_run_state(const Digest& run, RunState state, const std::string& reason) {
  impl_->flush();
  const Database& db = impl_->database;
  bool finished = state == RunState::finished;
  // The end of a run must survive a power cut as well. (Left on by an error, it only costs time.)
  if (finished) db.exec("PRAGMA synchronous = FULL");
  change_state(db, impl_->run_id(run), state, reason);
  if (finished) db.exec("PRAGMA synchronous = NORMAL");
}

int64_t Store::begin_attempt(const Digest& run, const AttemptStart& start) {
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  int64_t id = impl_->run_id(run);
  std::optional<int64_t> host;
  if (!start.hostname.empty()) {
    Statement(db, "INSERT INTO host(hostname, info) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .run(start.hostname, start.host_json);
    Statement find(db, "SELECT host_id FROM host WHERE hostname = ? AND info = ?");
    find.bind(start.hostname, start.host_json).step();
    host = find.integer(0);
  }
  Statement next(db, "SELECT ifnull(max(attempt), 0) + 1 FROM attempt WHERE run_id = ?");
  next.bind(id).step();
  int64_t attempt = next.integer(0);
  next.reset();
  Statement(
      db,
      "INSERT INTO attempt(run_id, attempt, engine, host_id, program, pid, start_step, started_at, log_path, "
      "estimated_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .run(id, attempt, start.engine, host, start.program, start.pid, start.start_step, now_utc(),
           start.log_path, start.estimated_bytes);
  Statement update(db,
                   "UPDATE run SET state = 'running', reason = '' WHERE run_id = ? AND state <> 'finished' "
                   "RETURNING run_id");
  QLORA_CHECK(update.bind(id).step(), failure, "a finished run cannot be started again ({})", hex(run));
  update.reset();
  transaction.commit();
  return attempt;
}

void Store::end_attempt(const Digest& run, int64_t attempt, const AttemptEnd& end) {
  impl_->flush();
  const Database& db = impl_->database;
  Statement update(db,
                   "UPDATE attempt SET ended_at = ?, outcome = ?, exit_code = ?, signal = ?, error = ?, "
                   "peak_bytes = ?, seconds = ? WHERE run_id = ? AND attempt = ? AND ended_at IS NULL "
                   "RETURNING attempt");
  bool found = update
                   .bind(now_utc(), end.outcome, end.exit_code, end.signal, end.error, end.peak_bytes,
                         end.seconds, impl_->run_id(run), attempt)
                   .step();
  QLORA_CHECK(found, failure, "run {} has no open attempt {}", hex(run), attempt);
  while (update.step()) {
  }
}

// ---------- curves

void Store::write_steps(const Digest& run, std::span<const StepRow> steps) {
  int64_t id = impl_->run_id(run);
  for (const StepRow& step : steps) impl_->waiting.emplace_back(id, step);
  bool due = std::chrono::steady_clock::now() - impl_->last_flush >= kFlushInterval;
  if (due || impl_->waiting.size() >= kStepsPerTransaction) impl_->flush();
}

void Store::flush() {
  impl_->flush();
}

void Store::Impl::flush() {
  last_flush = std::chrono::steady_clock::now();
  if (waiting.empty()) return;
  Transaction transaction(database);
  int64_t loss = metric_id("loss"), norm = metric_id("grad_norm"), rate = metric_id("learning_rate");
  int64_t tokens = metric_id("tokens"), labels = metric_id("labels"), seconds = metric_id("seconds");
  Statement insert(database,
                   "INSERT INTO metric(run_id, metric_id, step, value) VALUES (?, ?, ?, ?) "
                   "ON CONFLICT DO UPDATE SET value = excluded.value");
  for (const auto& [run, row] : waiting) {
    insert.run(run, loss, row.step, finite(row.loss));
    insert.run(run, norm, row.step, finite(row.grad_norm));
    insert.run(run, rate, row.step, finite(row.learning_rate));
    insert.run(run, tokens, row.step, static_cast<double>(row.tokens));
    insert.run(run, labels, row.step, static_cast<double>(row.labels));
    insert.run(run, seconds, row.step, finite(row.seconds));
  }
  transaction.commit();
  // Only now: a failed write (a full disk) can be tried again.
  waiting.clear();
}

// ---------- ids

int64_t Store::Impl::run_id(const Digest& key) const {
  Statement find(database, "SELECT run_id FROM run WHERE run_key = ?");
  QLORA_CHECK(find.bind(key).step(), failure, "{}: run {} is not declared", database.path().string(),
              hex(key));
  return find.integer(0);
}

int64_t Store::Impl::id_by_name(const char* table, const char* id, const std::string& name) const {
  Statement find(database, fmt::format("SELECT {} FROM {} WHERE name = ?", id, table));
  if (find.bind(name).step()) return find.integer(0);
  Statement insert(database, fmt::format("INSERT INTO {}(name) VALUES (?) RETURNING {}", table, id));
  insert.bind(name).step();
  return insert.integer(0);
}

int64_t Store::Impl::metric_id(const std::string& name) const {
  return id_by_name("metric_name", "metric_id", name);
}
int64_t Store::Impl::judge_id(const std::string& name) const {
  return id_by_name("judge", "judge_id", name);
}
int64_t Store::Impl::system_id(const std::string& name) const {
  return id_by_name("system", "system_id", name);
}

}  // namespace qlora
