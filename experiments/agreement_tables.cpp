#include "experiments/agreement_tables.h"

#include <array>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "results/table.h"

namespace qlora {

namespace {

constexpr std::string_view kUndefined = "n/a";

std::string cell(const Estimate& e, double scale, int digits) {
  if (!e.value) return std::string(kUndefined);
  std::string text = fmt::format("{:.{}f}", scale * *e.value, digits);
  if (e.lo) text += fmt::format(" [{:.{}f}, {:.{}f}]", scale * *e.lo, digits, scale * *e.hi, digits);
  return text;
}
std::string kappa_cell(const Estimate& e) {
  return cell(e, 1, 3);
}
std::string percent_cell(const Estimate& e) {
  return cell(e, 100, 1);
}

Json number_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json estimate_json(const Estimate& e) {
  Json json = {{"value", number_json(e.value)}, {"lo", number_json(e.lo)}, {"hi", number_json(e.hi)}};
  if (e.undefined > 0) json["undefined_resamples"] = e.undefined;
  return json;
}

std::string text_of(Table table) {
  TextStyle style;
  style.max_width = 0;
  return render_text(table, style);
}

std::string raters_text(const AgreementReport& report) {
  Table table;
  table.columns = {"judge",  "items",         "raters",  "invalid", "raw",
                   "fleiss", "alpha nominal", "ordinal", "interval"};
  for (const RaterAgreement& r : report.raters)
    table.rows.push_back({r.judge, r.items, r.raters > 0 ? Value(r.raters) : Value("varies"), r.invalid,
                          kappa_cell(r.raw), kappa_cell(r.fleiss), kappa_cell(r.alpha_nominal),
                          kappa_cell(r.alpha_ordinal), kappa_cell(r.alpha_interval)});
  if (table.empty()) return "";
  std::string text = "Raters of one judge\n" + text_of(table);
  for (const RaterAgreement& r : report.raters)
    if (r.single > 0)
      text += fmt::format("{}: {} items with one rater are left out, beside these {}.\n", r.judge, r.single,
                          r.items);
  return text + "\n";
}

std::string judges_text(const AgreementReport& report) {
  Table table;
  table.columns = {"judge",     "other",  "order",         "n",       "invalid", "raw", "kappa", "linear",
                   "quadratic", "fleiss", "alpha nominal", "ordinal", "interval"};
  for (const JudgeAgreement& j : report.judges)
    table.rows.push_back({j.judge, j.other, j.order, j.items, j.invalid, kappa_cell(j.raw),
                          kappa_cell(j.kappa), kappa_cell(j.kappa_linear), kappa_cell(j.kappa_quadratic),
                          kappa_cell(j.fleiss), kappa_cell(j.alpha_nominal), kappa_cell(j.alpha_ordinal),
                          kappa_cell(j.alpha_interval)});
  return table.empty() ? ""
                       : "Two judges on the same answers (a majority stands for several raters)\n" +
                             text_of(table) + "\n";
}

std::string systems_text(const AgreementReport& report) {
  Table table;
  table.columns = {"judge", "other", "systems", "kendall tau-b", "spearman rho", "pearson"};
  for (const SystemAgreement& s : report.systems)
    table.rows.push_back({s.judge, s.other, s.systems, kappa_cell(s.kendall_tau_b),
                          kappa_cell(s.spearman_rho), kappa_cell(s.pearson)});
  return table.empty() ? ""
                       : "Two judges on the order of the systems, by (wins + ties / 2) / games\n" +
                             text_of(table) + "\n";
}

// What a reader of this text must know.
std::string legend_of(const std::string& text) {
  std::string legend = "In brackets: 95%, prompts drawn again.\n";
  if (text.find(kUndefined) != std::string::npos)
    legend +=
        "n/a: undefined, for there is no such vote or nothing varies (every rating, or every score, is the "
        "same).\n";
  return legend;
}

const PublishedRelativeScore* published_row(const std::string& system) {
  for (const PublishedRelativeScore& row : published_relative_scores())
    if (row.system == system) return &row;
  return nullptr;
}

}  // namespace

std::string print_agreement(const AgreementReport& report) {
  if (report.empty())
    return "Nothing to compare: one judge, and one vote on each pair of answers in each order.\n";
  const std::string text = raters_text(report) + judges_text(report) + systems_text(report);
  return text + legend_of(text);
}

std::string print_bias(std::span<const JudgeBias> all) {
  Table places, swaps;
  places.columns = {"judge", "votes", "invalid", "first wins %", "second wins %", "tie %"};
  swaps.columns = {"judge",     "swaps", "consistent %", "first both times %", "second both times %",
                   "one tie %", "kappa", "quadratic",    "alpha nominal",      "interval"};
  for (const JudgeBias& b : all) {
    places.rows.push_back(
        {b.judge, b.votes, b.invalid, percent_cell(b.first), percent_cell(b.second), percent_cell(b.tie)});
    swaps.rows.push_back({b.judge, b.swaps, percent_cell(b.consistent), percent_cell(b.first_biased),
                          percent_cell(b.second_biased), percent_cell(b.one_tie), kappa_cell(b.kappa),
                          kappa_cell(b.kappa_quadratic), kappa_cell(b.alpha_nominal),
                          kappa_cell(b.alpha_interval)});
  }
  std::string text = "Which answer wins, by its place\n" + text_of(places) +
                     "\nThe same two answers in both orders\n" + text_of(swaps) + "\n";
  text += legend_of(text);
  for (const JudgeBias& b : all)
    if (b.order_unknown > 0)
      text += fmt::format("{}: {} votes of unknown order are left out.\n", b.judge, b.order_unknown);
  return text;
}

std::string print_relative(std::span<const RelativeScore> scores, const std::string& reference,
                           bool published) {
  Table table;
  table.columns = {"system", "judge", reference + " first", "system first", "pooled", "votes", "invalid"};
  if (published) table.columns.insert(table.columns.end(), {"paper: first", "second", "mean", "remark"});
  for (const RelativeScore& s : scores) {
    std::vector<Value> row = {
        s.system, s.judge,  cell(s.reference_first, 1, 1), cell(s.system_first, 1, 1), cell(s.pooled, 1, 1),
        s.votes,  s.invalid};
    if (published) {
      std::array<std::string, 4> cells;
      if (const PublishedRelativeScore* paper = published_row(s.system))
        cells = {fmt::format("{:.1f}", paper->reference_first), fmt::format("{:.1f}", paper->system_first),
                 fmt::format("{:.1f}", paper->mean), std::string(paper->remark)};
      row.insert(row.end(), cells.begin(), cells.end());
    }
    table.rows.push_back(std::move(row));
  }
  const std::string text = text_of(table);
  return text + "100 * sum of the system's points / sum of " + reference + "'s, valid votes alone.\n" +
         legend_of(text);
}

Json agreement_json(const AgreementReport& report) {
  Json raters = Json::array(), judges = Json::array(), systems = Json::array();
  for (const RaterAgreement& r : report.raters)
    raters.push_back({{"judge", r.judge},
                      {"items", r.items},
                      {"votes", r.votes},
                      {"invalid", r.invalid},
                      {"single_rater_items", r.single},
                      {"raters", r.raters > 0 ? Json(r.raters) : Json(nullptr)},
                      {"raw", estimate_json(r.raw)},
                      {"fleiss", estimate_json(r.fleiss)},
                      {"alpha_nominal", estimate_json(r.alpha_nominal)},
                      {"alpha_ordinal", estimate_json(r.alpha_ordinal)},
                      {"alpha_interval", estimate_json(r.alpha_interval)}});
  for (const JudgeAgreement& j : report.judges)
    judges.push_back({{"judge", j.judge},
                      {"other", j.other},
                      {"order", j.order},
                      {"items", j.items},
                      {"invalid", j.invalid},
                      {"raw", estimate_json(j.raw)},
                      {"kappa", estimate_json(j.kappa)},
                      {"kappa_linear", estimate_json(j.kappa_linear)},
                      {"kappa_quadratic", estimate_json(j.kappa_quadratic)},
                      {"fleiss", estimate_json(j.fleiss)},
                      {"alpha_nominal", estimate_json(j.alpha_nominal)},
                      {"alpha_ordinal", estimate_json(j.alpha_ordinal)},
                      {"alpha_interval", estimate_json(j.alpha_interval)}});
  for (const SystemAgreement& s : report.systems)
    systems.push_back({{"judge", s.judge},
                       {"other", s.other},
                       {"systems", s.systems},
                       {"kendall_tau_b", estimate_json(s.kendall_tau_b)},
                       {"spearman_rho", estimate_json(s.spearman_rho)},
                       {"pearson", estimate_json(s.pearson)}});
  return {{"raters", raters}, {"judges", judges}, {"systems", systems}};
}

Json bias_json(std::span<const JudgeBias> all) {
  Json list = Json::array();
  for (const JudgeBias& b : all)
    list.push_back({{"judge", b.judge},
                    {"votes", b.votes},
                    {"invalid", b.invalid},
                    {"order_unknown", b.order_unknown},
                    {"first", estimate_json(b.first)},
                    {"second", estimate_json(b.second)},
                    {"tie", estimate_json(b.tie)},
                    {"swaps", b.swaps},
                    {"consistent", estimate_json(b.consistent)},
                    {"first_biased", estimate_json(b.first_biased)},
                    {"second_biased", estimate_json(b.second_biased)},
                    {"one_tie", estimate_json(b.one_tie)},
                    {"kappa", estimate_json(b.kappa)},
                    {"kappa_quadratic", estimate_json(b.kappa_quadratic)},
                    {"alpha_nominal", estimate_json(b.alpha_nominal)},
                    {"alpha_interval", estimate_json(b.alpha_interval)}});
  return {{"judges", list}};
}

Json relative_json(std::span<const RelativeScore> scores, const std::string& reference, bool published) {
  Json list = Json::array();
  for (const RelativeScore& s : scores) {
    Json row = {{"system", s.system},
                {"judge", s.judge},
                {"reference_first", estimate_json(s.reference_first)},
                {"system_first", estimate_json(s.system_first)},
                {"pooled", estimate_json(s.pooled)},
                {"reference_first_votes", s.reference_first_votes},
                {"system_first_votes", s.system_first_votes},
                {"votes", s.votes},
                {"invalid", s.invalid}};
    if (const PublishedRelativeScore* paper = published ? published_row(s.system) : nullptr)
      row["paper"] = {{"reference_first", paper->reference_first},
                      {"system_first", paper->system_first},
                      {"mean", paper->mean},
                      {"remark", std::string(paper->remark)}};
    list.push_back(std::move(row));
  }
  return {{"reference", reference}, {"scores", list}};
}

}  // namespace qlora
