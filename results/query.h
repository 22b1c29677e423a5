#pragma once
// SQL from a user, read-only: what `qlora results query` runs.

#include <string>

#include "core/base/file.h"
#include "results/table.h"

namespace qlora {

struct QueryLimits {
  double seconds = 30;           // a longer query is ended
  int64_t max_rows = 1'000'000;  // more rows are an error, not a silent cut
};

// Runs one SELECT (WITH and read-only PRAGMAs of the schema included) on a store. Nothing can be changed by
// it: the file is opened read-only, and an authorizer admits reading alone; ATTACH, writes, loading of
// extensions and changes of settings are refused. Throws Error(usage) with SQLite's reason (syntax error,
// unknown column, refused, ran too long), Error(data) when the file is missing or is no store.
Table run_query(const Path& database, const std::string& sql, const QueryLimits& = {});

}  // namespace qlora
