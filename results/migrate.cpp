#include "results/migrate.h"

#include <sys/vfs.h>

#include <filesystem>
#include <string>

#include "core/base/check.h"

namespace qlora {

namespace {

void back_up(const Database& database, int version) {
  Path copy = database.path();
  copy += fmt::format(".v{}.bak", version);
  Path temporary = copy;
  temporary += ".tmp";
  std::filesystem::remove(temporary);
  Statement(database, "VACUUM INTO ?").run(temporary.string());
  std::filesystem::rename(temporary, copy);
}

void apply(const Database& database, const Migration& step) {
  Transaction transaction(database);
  // Another process may have been faster between our reading of the version and our lock.
  if (database.integer("PRAGMA user_version") >= step.version) return;
  database.exec(std::string(step.sql));
  QLORA_CHECK(database.integer("SELECT count(*) FROM pragma_foreign_key_check") == 0, failure,
              "{}: {} would leave references to nothing; the file stays at version {}",
              database.path().string(), step.name, step.version - 1);
  database.exec(
      fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {};", kApplicationId, step.version));
  transaction.commit();
}

}  // namespace

int store_version(const Database& database, int newest) {
  auto version = static_cast<int>(database.integer("PRAGMA user_version"));
  int64_t id = database.integer("PRAGMA application_id");
  bool empty = id == 0 && version == 0 && database.integer("SELECT count(*) FROM sqlite_schema") == 0;
  std::string file = database.path().string();
  QLORA_CHECK(empty || id == kApplicationId, data,
              "{}: an SQLite database, but no results store of this program; give another file with --db",
              file);
  QLORA_CHECK(
      version <= newest, data,
      "{}: written by a newer version of this program (schema version {}, this program knows {}); use that "
      "version, or give another file with --db",
      file, version, newest);
  return version;
}

void migrate(const Database& database, std::span<const Migration> steps) {
  int newest = steps.empty() ? 0 : steps.back().version;
  int version = store_version(database, newest);
  if (version == newest) return;
  if (version > 0) back_up(database, version);
  // A step that rebuilds a table needs this off, and it cannot change inside of a transaction.
  database.exec("PRAGMA foreign_keys = OFF");
  try {
    for (const Migration& step : steps)
      if (step.version > version) apply(database, step);
  } catch (...) {
    database.exec("PRAGMA foreign_keys = ON");
    throw;
  }
  database.exec("PRAGMA foreign_keys = ON");
}

FileSystem file_system_kind(int64_t type) {
  switch (static_cast<uint32_t>(type)) {
    case 0x6969:      // NFS
    case 0x517B:      // SMB
    case 0xFF534D42:  // CIFS
    case 0xFE534D42:  // SMB2
    case 0x0BD00BD0:  // Lustre
    case 0x00C36400:  // Ceph
    case 0x47504653:  // GPFS
    case 0x19830326:  // BeeGFS
    case 0x5346414F:  // AFS
    case 0x01161970:  // GFS2
    case 0x7461636F:  // OCFS2
      return FileSystem::network;
    case 0x65735546:  // FUSE
    case 0x01021997:  // 9p
      return FileSystem::unsure;
    default:
      return FileSystem::local;
  }
}

FileSystem file_system_of(const Path& file) {
  Path folder = std::filesystem::absolute(file).parent_path();
  struct statfs info {};
  QLORA_CHECK(::statfs(folder.c_str(), &info) == 0, data, "{}: there is no folder {}", file.string(),
              folder.string());
  return file_system_kind(info.f_type);
}

void set_journal(const Database& database, FileSystem kind) {
  QLORA_CHECK(
      kind != FileSystem::network, usage,
      "{}: lies on a network file system, where SQLite's write-ahead log is not safe; keep the store on a "
      "local disk (--db FILE) and copy it when the sweep has ended",
      database.path().string());
  // The page size counts only before the first page is written.
  database.exec("PRAGMA page_size = 8192");
  database.exec(kind == FileSystem::local ? "PRAGMA journal_mode = WAL" : "PRAGMA journal_mode = DELETE");
}

}  // namespace qlora
