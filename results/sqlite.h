#pragma once
// A thin owner of sqlite3's handles. Errors of SQLite become Error with the file's path: data for a file that
// is damaged, missing or no database, failure for a full disk, a lock held too long, a broken constraint.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/file.h"
#include "core/base/hash.h"
#include "results/table.h"

struct sqlite3;
struct sqlite3_stmt;

namespace qlora {

// One connection, for one thread at a time. Settings on opening: foreign keys on, waits 30 s for a lock,
// double-quoted strings are not text, the schema cannot be edited by hand, synchronous = NORMAL, temporary
// data in memory.
class Database {
 public:
  enum class Mode { create, write, read };  // create: make the file when it is missing
  Database(const Path&, Mode);
  ~Database();
  Database(Database&&) noexcept;
  Database& operator=(Database&&) noexcept;

  const Path& path() const { return path_; }
  sqlite3* handle() const { return handle_; }

  // Runs statements without results.
  void exec(const std::string& sql) const;
  // The first column of the first row, for PRAGMAs and counts.
  int64_t integer(const std::string& sql) const;
  // Throws the Error of a result code unless it is OK, ROW or DONE.
  void check(int code) const;

 private:
  Path path_;
  sqlite3* handle_ = nullptr;
};

// A compiled statement. Values are bound by position, from 1; text and blobs are copied. NaN is bound as
// NULL.
class Statement {
 public:
  Statement(const Database&, std::string_view sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Starts over with these values.
  template <class... Values>
  Statement& bind(const Values&... values) {
    reset();
    int position = 0;
    (set(++position, values), ...);
    return *this;
  }
  // To the next row; false at the end (the statement is then ready to be bound again).
  bool step();
  // Binds and runs to the end.
  template <class... Values>
  void run(const Values&... values) {
    bind(values...);
    while (step()) {
    }
  }
  void reset();

  // Of the current row; columns from 0.
  int columns() const;
  bool null(int column) const;
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;  // empty for NULL
  Bytes blob(int column) const;
  Digest digest(int column) const;
  Value value(int column) const;
  std::optional<int64_t> optional_integer(int column) const;
  std::optional<double> optional_real(int column) const;
  // All rows from here on.
  Table table();

 private:
  void set(int position, int64_t);
  void set(int position, int value) { set(position, int64_t{value}); }
  void set(int position, bool value) { set(position, int64_t{value}); }
  void set(int position, double);
  void set(int position, std::string_view);
  void set(int position, const std::string& text) { set(position, std::string_view(text)); }
  void set(int position, const char* text) { set(position, std::string_view(text)); }
  void set(int position, std::span<const uint8_t>);
  void set(int position, const Bytes& bytes) { set(position, std::span<const uint8_t>(bytes)); }
  void set(int position, const Digest& digest) { set(position, std::span<const uint8_t>(digest)); }
  void set(int position, std::nullopt_t);
  template <class T>
  void set(int position, const std::optional<T>& value) {
    value ? set(position, *value) : set(position, std::nullopt);
  }

  const Database* database_;
  sqlite3_stmt* handle_ = nullptr;
};

// BEGIN IMMEDIATE: takes the write lock at once, so that a transaction never fails halfway for want of it.
// Rolled back unless committed.
class Transaction {
 public:
  explicit Transaction(const Database&);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  const Database* database_;
  bool open_ = true;
};

}  // namespace qlora
