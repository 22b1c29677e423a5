// Ratings as people and programs read them.
#include <nlohmann/json.hpp>

#include "eval/ratings/presets.h"
#include "experiments/tournament.h"
#include "results/table.h"

namespace qlora {
namespace {

template <class T>
Json json_of(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}
Value value_of(const std::optional<double>& value) {
  return value ? Value(*value) : Value();
}

std::string ranks_of(const Rating& r) {
  if (!r.rank_lo) return "";
  return *r.rank_lo == *r.rank_hi ? fmt::format("{}", *r.rank_lo)
                                  : fmt::format("{}-{}", *r.rank_lo, *r.rank_hi);
}

Json rating_json(const Rating& r, int64_t rank, bool online) {
  Json json = {{"rank", rank},
               {"system", r.system},
               {"rating", r.rating},
               {"se", json_of(r.se)},
               {"ci_lo", json_of(r.ci_lo)},
               {"ci_hi", json_of(r.ci_hi)},
               {"games", r.games},
               {"wins", r.wins},
               {"losses", r.losses},
               {"ties", r.ties},
               {"invalid", r.invalid},
               {"rank_lo", json_of(r.rank_lo)},
               {"rank_hi", json_of(r.rank_hi)},
               {"rank_probability", r.rank_probability}};
  if (online) json.update({{"order_sd", r.order_sd}, {"mc_error", r.mc_error}});
  return json;
}

Json terms_json(const std::vector<Term>& terms) {
  Json list = Json::array();
  for (const Term& t : terms)
    list.push_back({{"name", t.name},
                    {"unit", t.unit},
                    {"value", t.value},
                    {"se", json_of(t.se)},
                    {"ci_lo", json_of(t.ci_lo)},
                    {"ci_hi", json_of(t.ci_hi)}});
  return list;
}

void add_options(Json& json, const EloReport& report) {
  const EloOptions& o = report.options;
  json.update({{"k", o.k},
               {"orders", o.orders},
               {"rounds", o.rounds == Rounds::shuffle ? "shuffle" : "bootstrap"},
               {"bootstrap", o.bootstrap},
               {"seed", o.seed}});
}

void add_options(Json& json, const ModelReport& report) {
  const ModelOptions& o = report.options;
  Json anchors = Json::object();
  for (const Anchor& a : o.anchors) anchors[a.system] = a.rating;
  json.update({{"terms", terms_json(report.terms)},
               {"log_likelihood", report.log_likelihood},
               {"degenerate_draws", report.degenerate_draws},
               {"anchors", anchors},
               {"mean", o.anchors.empty() ? Json(o.initial) : Json(nullptr)},
               {"bootstrap", o.interval == Interval::bootstrap ? o.draws : 0},
               {"seed", o.seed}});
}

// Votes without a verdict count against both of their systems.
int64_t votes_without_verdict(const RatingReport& report) {
  int64_t twice = 0;
  for (const Rating& r : report.ratings) twice += r.invalid;
  return twice / 2;
}

std::string term_line(const Term& t) {
  std::string line = fmt::format("{}: {:.3g}{}", t.name, t.value, t.unit.empty() ? "" : " " + t.unit);
  if (t.ci_lo && t.ci_hi) line += fmt::format(" ({:.3g} to {:.3g})", *t.ci_lo, *t.ci_hi);
  return line + "\n";
}

}  // namespace

std::string print_ratings(const TournamentRatings& ratings) {
  const RatingReport& report = ratings.report();
  bool online = ratings.elo.has_value();
  const bool interval = !report.ci_method.empty();
  Table table;
  table.columns = {"rank", "system", "rating"};
  if (interval) table.columns.insert(table.columns.end(), {"se", "ci_lo", "ci_hi", "ranks"});
  if (online) table.columns.push_back("order_sd");
  for (const char* name : {"games", "wins", "losses", "ties"}) table.columns.emplace_back(name);
  int64_t rank = 0;
  for (const Rating& r : report.ratings) {
    std::vector<Value> row = {++rank, r.system, r.rating};
    if (interval) row.insert(row.end(), {value_of(r.se), value_of(r.ci_lo), value_of(r.ci_hi), ranks_of(r)});
    if (online) row.emplace_back(r.order_sd);
    for (int64_t count : {r.games, r.wins, r.losses, r.ties}) row.emplace_back(count);
    table.rows.push_back(std::move(row));
  }
  TextStyle style;
  style.decimals = 1;
  std::string out = render_text(table, style);
  out += fmt::format("{}: {} matches", ratings.model(), report.matches);
  if (const int64_t left_out = votes_without_verdict(report); left_out > 0)
    out += fmt::format(" ({} vote{} without a verdict left out)", left_out, left_out == 1 ? "" : "s");
  if (online) {
    out += fmt::format(", {} orders, K = {}; order_sd is the noise of one order, no interval",
                       ratings.elo->options.orders, ratings.elo->options.k);
  } else {
    out += fmt::format(", log-likelihood {:.2f}", ratings.fitted->log_likelihood);
  }
  if (!report.ci_method.empty()) out += "; interval: " + report.ci_method;
  out += "\n";
  if (!online)
    for (const Term& t : ratings.fitted->terms) out += term_line(t);
  if (!report.note.empty()) out += report.note + "\n";
  return out;
}

std::string ratings_json(const TournamentRatings& ratings, const TournamentSpec& spec) {
  const RatingReport& report = ratings.report();
  Json list = Json::array();
  int64_t rank = 0;
  for (const Rating& r : report.ratings) list.push_back(rating_json(r, ++rank, ratings.elo.has_value()));
  Json json = {{"model", ratings.model()},
               {"ratings", list},
               {"above", report.above},
               {"matches", report.matches},
               {"prompts", report.prompts},
               {"ci_method", report.ci_method.empty() ? Json(nullptr) : Json(report.ci_method)},
               {"note", report.note}};
  if (ratings.elo) {
    add_options(json, *ratings.elo);
  } else {
    add_options(json, *ratings.fitted);
  }
  if (!spec.preset.empty()) json["preset"] = spec.preset;
  return json.dump(1);
}

}  // namespace qlora
