#include "results/sqlite.h"

#include <sqlite3.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace qlora {

namespace {

constexpr int kBusyMilliseconds = 30'000;

[[noreturn]] void fail_with(int code, const Path& path, const std::string& message) {
  std::string file = path.string();
  switch (code & 0xff) {
    case SQLITE_NOTADB:
      fail(ErrorKind::data, "{}: not a results store (not an SQLite database)", file);
    case SQLITE_CORRUPT:
      fail(ErrorKind::data, "{}: the results store is damaged ({})", file, message);
    case SQLITE_CANTOPEN:
      fail(ErrorKind::data, "{}: cannot be opened ({})", file, message);
    case SQLITE_READONLY:
      fail(ErrorKind::data, "{}: cannot be written ({})", file, message);
    case SQLITE_FULL:
      fail(ErrorKind::failure,
           "{}: the disk is full; what was stored before is intact, make room and run again", file);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      fail(ErrorKind::failure,
           "{}: another process has been writing for {} s; wait for it to end, or stop it", file,
           kBusyMilliseconds / 1000);
    case SQLITE_NOMEM:
      fail(ErrorKind::memory, "{}: out of memory", file);
    default:
      fail(ErrorKind::failure, "{}: {}", file, message);
  }
}

}  // namespace

Database::Database(const Path& path, Mode mode) : path_(path) {
  int flags = SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_NOMUTEX;
  flags |= mode == Mode::read ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
  if (mode == Mode::create) flags |= SQLITE_OPEN_CREATE;
  int code = sqlite3_open_v2(path.c_str(), &handle_, flags, nullptr);
  if (code != SQLITE_OK) {
    std::string message = handle_ != nullptr ? sqlite3_errmsg(handle_) : "out of memory";
    sqlite3_close_v2(std::exchange(handle_, nullptr));
    fail_with(code, path_, message);
  }
  sqlite3_busy_timeout(handle_, kBusyMilliseconds);
  for (int off : {SQLITE_DBCONFIG_DQS_DML, SQLITE_DBCONFIG_DQS_DDL})
    sqlite3_db_config(handle_, off, 0, static_cast<int*>(nullptr));
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_DEFENSIVE, 1, static_cast<int*>(nullptr));
  try {
    exec("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA synchronous = NORMAL;");
  } catch (...) {
    sqlite3_close_v2(std::exchange(handle_, nullptr));
    throw;
  }
}

Database::~Database() {
  sqlite3_close_v2(handle_);
}

Database::Database(Database&& other) noexcept
    : path_(std::move(other.path_)), handle_(std::exchange(other.handle_, nullptr)) {}

Database& Database::operator=(Database&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(handle_, other.handle_);
  return *this;
}

void Database::exec(const std::string& sql) const {
  check(sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr));
}

int64_t Database::integer(const std::string& sql) const {
  Statement statement(*this, sql);
  return statement.step() ? statement.integer(0) : 0;
}

void Database::check(int code) const {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
  fail_with(code, path_, sqlite3_errmsg(handle_));
}

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
  database.check(
      sqlite3_prepare_v2(database.handle(), sql.data(), static_cast<int>(sql.size()), &handle_, nullptr));
}

Statement::~Statement() {
  sqlite3_finalize(handle_);
}

bool Statement::step() {
  int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) {
    try {
      database_->check(code);
    } catch (...) {
      reset();
      throw;
    }
  }
  reset();
  return false;
}

void Statement::reset() {
  sqlite3_reset(handle_);
}

void Statement::set(int position, int64_t value) {
  database_->check(sqlite3_bind_int64(handle_, position, value));
}

void Statement::set(int position, double value) {
  database_->check(sqlite3_bind_double(handle_, position, value));
}

void Statement::set(int position, std::string_view text) {
  const char* data = text.data() != nullptr ? text.data() : "";
  database_->check(
      sqlite3_bind_text(handle_, position, data, static_cast<int>(text.size()), SQLITE_TRANSIENT));
}

void Statement::set(int position, std::span<const uint8_t> bytes) {
  const void* data = bytes.empty() ? static_cast<const void*>("") : bytes.data();
  database_->check(
      sqlite3_bind_blob(handle_, position, data, static_cast<int>(bytes.size()), SQLITE_TRANSIENT));
}

void Statement::set(int position, std::nullopt_t) {
  database_->check(sqlite3_bind_null(handle_, position));
}

int Statement::columns() const {
  return sqlite3_column_count(handle_);
}

bool Statement::null(int column) const {
  return sqlite3_column_type(handle_, column) == SQLITE_NULL;
}

int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(handle_, column);
}

double Statement::real(int column) const {
  return sqlite3_column_double(handle_, column);
}

std::string Statement::text(int column) const {
  auto* data = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
  if (data == nullptr) return "";
  return std::string(data, static_cast<size_t>(sqlite3_column_bytes(handle_, column)));
}

Bytes Statement::blob(int column) const {
  auto* data = static_cast<const uint8_t*>(sqlite3_column_blob(handle_, column));
  return Bytes(data, data + sqlite3_column_bytes(handle_, column));
}

Digest Statement::digest(int column) const {
  Bytes bytes = blob(column);
  QLORA_CHECK(bytes.size() == Digest{}.size(), data, "{}: a key of {} bytes where 32 are expected",
              database_->path().string(), bytes.size());
  Digest digest;
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

Value Statement::value(int column) const {
  switch (sqlite3_column_type(handle_, column)) {
    case SQLITE_INTEGER:
      return integer(column);
    case SQLITE_FLOAT:
      return real(column);
    case SQLITE_TEXT:
      return text(column);
    case SQLITE_BLOB:
      return blob(column);
    default:
      return std::monostate{};
  }
}

std::optional<int64_t> Statement::optional_integer(int column) const {
  return null(column) ? std::nullopt : std::optional(integer(column));
}

std::optional<double> Statement::optional_real(int column) const {
  return null(column) ? std::nullopt : std::optional(real(column));
}

Table Statement::table() {
  Table table;
  for (int i = 0; i < columns(); ++i) table.columns.emplace_back(sqlite3_column_name(handle_, i));
  while (step()) {
    auto& row = table.rows.emplace_back();
    for (int i = 0; i < columns(); ++i) row.push_back(value(i));
  }
  return table;
}

Transaction::Transaction(const Database& database) : database_(&database) {
  database.exec("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
  // After some errors (a full disk) SQLite has rolled back by itself; a second rollback is then a harmless
  // error.
  if (open_) sqlite3_exec(database_->handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
  database_->exec("COMMIT");
  open_ = false;
}

}  // namespace qlora
