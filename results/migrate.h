#pragma once
// Versions of the store's schema. Version n is what results/schema/0001 to n made, each in one transaction;
// it stands in the file as PRAGMA user_version, and PRAGMA application_id tells a store from other SQLite
// files.

#include <span>
#include <string_view>

#include "results/sqlite.h"

namespace qlora {

struct Migration {
  int version;            // from 1, without gaps
  std::string_view name;  // of its file in results/schema
  std::string_view sql;
};

// All of them, in order; compiled in from results/schema/*.sql.
std::span<const Migration> migrations();

inline constexpr int64_t kApplicationId = 0x514C5231;  // "QLR1"

// Throws Error(data) unless the file is a results store of at most version `newest`. Returns its version; 0
// for an empty file.
int store_version(const Database&, int newest);

// Brings the file to the newest version. An older store is first copied to FILE.vN.bak; each step happens as
// a whole or not at all, and only if no foreign key is left dangling.
void migrate(const Database&, std::span<const Migration> = migrations());

// What a file system allows.
enum class FileSystem { local, unsure, network };
// By statfs's f_type. unsure: FUSE and 9p, which may or may not be remote.
FileSystem file_system_kind(int64_t type);
FileSystem file_system_of(const Path& file);  // which need not exist yet

// Page size and journal of a new or existing file: write-ahead log, or the rollback journal where the file
// system is unsure. Throws Error(usage) on a network file system.
void set_journal(const Database&, FileSystem);

}  // namespace qlora
