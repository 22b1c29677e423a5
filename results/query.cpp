#include "results/query.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>

#include "core/base/check.h"
#include "results/migrate.h"
#include "results/sqlite.h"

namespace qlora {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kOperationsPerCheck = 10'000;
constexpr int kLargestValue = 64 << 20;  // bytes of one text or blob

// PRAGMAs that only tell of the schema; also as table-valued functions pragma_NAME.
constexpr std::array<std::string_view, 8> kPragmas = {"table_info",    "table_xinfo",      "table_list",
                                                      "index_list",    "index_info",       "foreign_key_list",
                                                      "database_list", "foreign_key_check"};

// Admits reading and nothing else. Called by SQLite while it compiles a statement.
int authorize(void*, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return second != nullptr && std::strcmp(second, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_PRAGMA: {
      bool asks_version = second == nullptr && std::strcmp(first, "user_version") == 0;
      return asks_version || std::find(kPragmas.begin(), kPragmas.end(), first) != kPragmas.end()
                 ? SQLITE_OK
                 : SQLITE_DENY;
    }
    default:
      return SQLITE_DENY;
  }
}

int past_deadline(void* deadline) {
  return Clock::now() > *static_cast<Clock::time_point*>(deadline) ? 1 : 0;
}

void guard(const Database& db, Clock::time_point* deadline) {
  // Table-valued functions declare themselves with statements that the authorizer would refuse: once before
  // it.
  Statement(db, "SELECT 1 FROM json_each('[]'), json_tree('[]')").step();
  for (std::string_view name : kPragmas)
    Statement(db, fmt::format("SELECT 1 FROM pragma_{} LIMIT 0", name)).step();
  db.exec("PRAGMA query_only = ON");
  sqlite3_limit(db.handle(), SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_limit(db.handle(), SQLITE_LIMIT_LENGTH, kLargestValue);
  sqlite3_progress_handler(db.handle(), kOperationsPerCheck, past_deadline, deadline);
  sqlite3_set_authorizer(db.handle(), authorize, nullptr);
}

// Errors of the user's SQL, in the user's terms.
[[noreturn]] void refuse(const Database& db, int code, double seconds) {
  std::string message = sqlite3_errmsg(db.handle());
  if ((code & 0xff) == SQLITE_AUTH)
    fail(ErrorKind::usage, "refused: a query may only read ({}); to change a store, copy it and use sqlite3",
         message);
  if ((code & 0xff) == SQLITE_INTERRUPT)
    fail(ErrorKind::usage, "the query took longer than {} s and was ended", seconds);
  if ((code & 0xff) == SQLITE_ERROR || (code & 0xff) == SQLITE_TOOBIG || (code & 0xff) == SQLITE_READONLY)
    fail(ErrorKind::usage, "SQL: {}", message);
  db.check(code);
  fail(ErrorKind::failure, "{}: {}", db.path().string(), message);
}

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Handle = std::unique_ptr<sqlite3_stmt, Finalize>;

Handle compile(const Database& db, const std::string& sql, double seconds) {
  sqlite3_stmt* raw = nullptr;
  const char* tail = nullptr;
  int code = sqlite3_prepare_v2(db.handle(), sql.c_str(), static_cast<int>(sql.size()) + 1, &raw, &tail);
  Handle statement(raw);
  if (code != SQLITE_OK) refuse(db, code, seconds);
  QLORA_CHECK(statement != nullptr, usage, "SQL: there is no statement in `{}`", sql);
  sqlite3_stmt* more = nullptr;
  code = sqlite3_prepare_v2(db.handle(), tail, -1, &more, nullptr);
  bool second = more != nullptr || code != SQLITE_OK;
  sqlite3_finalize(more);
  QLORA_CHECK(!second, usage, "SQL: only one statement at a time; there is more after it: `{}`", tail);
  QLORA_CHECK(sqlite3_stmt_readonly(statement.get()) != 0, usage, "refused: a query may only read");
  return statement;
}

Value value_of(sqlite3_stmt* row, int column) {
  auto size = static_cast<size_t>(sqlite3_column_bytes(row, column));
  switch (sqlite3_column_type(row, column)) {
    case SQLITE_INTEGER:
      return int64_t{sqlite3_column_int64(row, column)};
    case SQLITE_FLOAT:
      return sqlite3_column_double(row, column);
    case SQLITE_TEXT:
      return std::string(reinterpret_cast<const char*>(sqlite3_column_text(row, column)), size);
    case SQLITE_BLOB: {
      auto* data = static_cast<const uint8_t*>(sqlite3_column_blob(row, column));
      return Bytes(data, data + size);
    }
    default:
      return std::monostate{};
  }
}

}  // namespace

Table run_query(const Path& path, const std::string& sql, const QueryLimits& limits) {
  QLORA_CHECK(std::filesystem::exists(path), data, "{}: there is no such results store", path.string());
  Database db(path, Database::Mode::read);
  store_version(db, migrations().back().version);
  auto deadline = Clock::now() +
                  std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limits.seconds));
  guard(db, &deadline);
  Handle statement = compile(db, sql, limits.seconds);
  Table table;
  int columns = sqlite3_column_count(statement.get());
  for (int i = 0; i < columns; ++i) table.columns.emplace_back(sqlite3_column_name(statement.get(), i));
  int code = 0;
  while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) {
    QLORA_CHECK(static_cast<int64_t>(table.rows.size()) < limits.max_rows, usage,
                "the query has more than {} rows; add a LIMIT", limits.max_rows);
    auto& row = table.rows.emplace_back();
    for (int i = 0; i < columns; ++i) row.push_back(value_of(statement.get(), i));
  }
  if (code != SQLITE_DONE) refuse(db, code, limits.seconds);
  return table;
}

}  // namespace qlora
