// Generated answers: one transaction each, so that an interrupted generation loses none that was there.
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "results/store_impl.h"

namespace qlora {

namespace {

int64_t prompt_id(const Database& db, const Digest& hash) {
  Statement find(db, "SELECT prompt_id FROM prompt WHERE sha256 = ?");
  if (find.bind(hash).step()) return find.integer(0);
  Statement insert(db, "INSERT INTO prompt(sha256) VALUES (?) RETURNING prompt_id");
  insert.bind(hash).step();
  return insert.integer(0);
}

// The name itself, unless another subject model, or another set of the same questions, competes under it.
std::string free_name(const Database& db, const GenerationSetRow& row, int64_t task, int64_t subject) {
  Statement taken(db,
                  "SELECT 1 FROM generation_set JOIN system USING (system_id) WHERE name = ? AND "
                  "(task_id = ? OR subject_model_id <> ?)");
  if (!taken.bind(row.system, task, subject).step()) return row.system;
  return row.system + "-" + hex(row.key).substr(0, 8);
}

}  // namespace

std::string Store::declare_generations(const GenerationSetRow& row) {
  QLORA_CHECK(parse_json(row.settings_json, "settings of generations").is_object(), usage,
              "the settings of generations must be a JSON object");
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  if (std::string name = system_of(row.key); !name.empty()) return name;
  const int64_t task = task_id(db, row.questions), subject = subject_model_id(db, row.subject);
  const std::string name = free_name(db, row, task, subject);
  Statement(db,
            "INSERT INTO generation_set(set_key, system_id, subject_model_id, step, task_id, settings, "
            "program, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
      .run(row.key, impl_->system_id(name), subject, row.step, task, row.settings_json, row.program,
           now_utc());
  transaction.commit();
  return name;
}

std::string Store::system_of(const Digest& set) const {
  Statement known(impl_->database,
                  "SELECT name FROM generation_set JOIN system USING (system_id) WHERE set_key = ?");
  return known.bind(set).step() ? known.text(0) : "";
}

void Store::write_generation(const Digest& set, const GenerationRow& row) {
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  Statement find(db, "SELECT generation_set_id FROM generation_set WHERE set_key = ?");
  QLORA_CHECK(find.bind(set).step(), failure, "{}: generations {} are not declared", db.path().string(),
              hex(set));
  Statement(db,
            "INSERT INTO generation(generation_set_id, question, turn, prompt_id, text, answer, tokens, "
            "finish, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(generation_set_id, question, turn) DO NOTHING")
      .run(find.integer(0), row.question, row.turn, prompt_id(db, row.prompt), row.text, row.answer,
           row.tokens, row.finish, row.created_at.empty() ? now_utc() : row.created_at);
  find.reset();
  transaction.commit();
}

std::vector<GenerationRow> Store::generations(const Digest& set) const {
  Statement rows(impl_->database,
                 "SELECT g.question, g.turn, p.sha256, g.text, g.answer, g.tokens, g.finish, g.created_at "
                 "FROM generation g JOIN generation_set s USING (generation_set_id) JOIN prompt p USING "
                 "(prompt_id) WHERE s.set_key = ? ORDER BY g.question, g.turn");
  rows.bind(set);
  std::vector<GenerationRow> all;
  while (rows.step())
    all.push_back({rows.text(0), rows.integer(1), rows.digest(2), rows.text(3), rows.text(4), rows.integer(5),
                   rows.text(6), rows.text(7)});
  return all;
}

}  // namespace qlora
