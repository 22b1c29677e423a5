// Metrics against the values of scikit-learn, scipy, rouge_score, NLTK and ROUGE-1.5.5.
#include <zlib.h>

#include <catch2/catch.hpp>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "eval/agreement/kappa.h"
#include "eval/metrics/classification.h"
#include "eval/metrics/correlation.h"
#include "eval/metrics/porter_stemmer.h"
#include "eval/metrics/rouge.h"

using namespace qlora;

namespace {

Json read_golden(const Path& path) {
  return parse_json(read_file(path), path.string());
}

// A value or its absence, as the goldens write it: null.
double error(const std::optional<double>& ours, const Json& theirs) {
  if (theirs.is_null() || !ours) return theirs.is_null() == !ours ? 0 : std::nan("");
  return std::abs(*ours - theirs.get<double>());
}

double error(const RougeScore& ours, const Json& theirs) {
  return std::max({std::abs(ours.precision - theirs[0].get<double>()),
                   std::abs(ours.recall - theirs[1].get<double>()),
                   std::abs(ours.f - theirs[2].get<double>())});
}

const RougeScore& of_type(const RougeScores& scores, const std::string& type) {
  return type == "rouge1"   ? scores.rouge1
         : type == "rouge2" ? scores.rouge2
         : type == "rougeL" ? scores.rouge_l
                            : scores.rouge_l_sum;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// A member of a ZIP archive, stored or deflated (APPNOTE.TXT 4.3.7), found by its local header.
std::string zip_member(const std::string& archive, const std::string& name) {
  auto number = [&](size_t at, size_t bytes) {
    size_t value = 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<uint8_t>(archive[at + i]);
    return value;
  };
  // The central directory knows the sizes; each of its entries begins with PK\1\2.
  for (size_t at = archive.find("PK\1\2"); at != std::string::npos; at = archive.find("PK\1\2", at + 1)) {
    if (archive.substr(at + 46, number(at + 28, 2)) != name) continue;
    const size_t packed = number(at + 20, 4), size = number(at + 24, 4), local = number(at + 42, 4);
    const size_t begin = local + 30 + number(local + 26, 2) + number(local + 28, 2);
    std::string data = archive.substr(begin, packed), result(size, '\0');
    z_stream z{};
    REQUIRE(inflateInit2(&z, -MAX_WBITS) == Z_OK);
    z.next_in = reinterpret_cast<Bytef*>(data.data());
    z.avail_in = static_cast<uInt>(data.size());
    z.next_out = reinterpret_cast<Bytef*>(result.data());
    z.avail_out = static_cast<uInt>(result.size());
    REQUIRE(inflate(&z, Z_FINISH) == Z_STREAM_END);
    inflateEnd(&z);
    return result;
  }
  FAIL("no member " << name);
  return {};
}

CategoryTable categories_of(const Confusion& confusion) {
  const int size = static_cast<int>(confusion.labels.size());
  CategoryTable table(size);
  for (int i = 0; i < size; ++i)
    for (int j = 0; j < size; ++j)
      table.at(i, j) = static_cast<double>(confusion.counts[static_cast<size_t>(i)][static_cast<size_t>(j)]);
  return table;
}

}  // namespace

TEST_CASE("classification scores equal those of scikit-learn", "[golden]") {
  const Path path = test::goldens() / "metrics/classification.json";
  if (test::missing(path)) return;
  const Json golden = read_golden(path);
  REQUIRE(golden["cases"].size() == 11);
  for (const Json& c : golden["cases"]) {
    CAPTURE(c["name"].get<std::string>());
    const auto truth = c["y_true"].get<std::vector<int64_t>>();
    const auto guess = c["y_pred"].get<std::vector<int64_t>>();
    const Confusion table = confusion(truth, guess);
    CHECK(table.labels == c["labels"].get<std::vector<int64_t>>());
    CHECK(table.counts == c["confusion"].get<std::vector<std::vector<int64_t>>>());
    CHECK(error(accuracy(table), c["accuracy"]) < 1e-9);
    CHECK(error(f1_macro(table), c["f1_macro"]) < 1e-9);
    CHECK(error(f1_micro(table), c["f1_micro"]) < 1e-9);
    CHECK(error(f1_weighted(table), c["f1_weighted"]) < 1e-9);
    CHECK(error(matthews_correlation(table), c["mcc"]) < 1e-9);
    CHECK(error(balanced_accuracy(table), c["balanced_accuracy"]) < 1e-9);
    CHECK(error(cohen_kappa(categories_of(table)), c["cohen_kappa"]) < 1e-9);
    if (!c.contains("f1_binary")) continue;
    const PrecisionRecall one = precision_recall(table, 1);
    CHECK(error(one.precision, c["precision"]) < 1e-9);
    CHECK(error(one.recall, c["recall"]) < 1e-9);
    CHECK(error(one.f1, c["f1_binary"]) < 1e-9);
  }
}

TEST_CASE("correlations and their p-values equal those of scipy", "[golden]") {
  const Path path = test::goldens() / "metrics/correlation.json";
  if (test::missing(path)) return;
  const Json golden = read_golden(path);
  REQUIRE(golden["cases"].size() == 11);
  for (const Json& c : golden["cases"]) {
    CAPTURE(c["name"].get<std::string>());
    const auto x = c["x"].get<std::vector<double>>(), y = c["y"].get<std::vector<double>>();
    const Correlation p = pearson(x, y), s = spearman(x, y), t = kendall(x, y);
    CHECK(error(p.value, c["pearson"]) < 1e-9);
    CHECK(error(s.value, c["spearman"]) < 1e-9);
    CHECK(error(t.value, c["kendall_tau_b"]) < 1e-9);
    CHECK(error(p.p, c["pearson_p"]) < 1e-6);
    CHECK(error(s.p, c["spearman_p"]) < 1e-6);
    CHECK(error(t.p, c["kendall_tau_b_p"]) < 1e-6);
  }
}

TEST_CASE("ROUGE equals that of rouge_score for every pair", "[golden]") {
  const Path path = test::goldens() / "metrics/rouge.json";
  if (test::missing(path)) return;
  const Json golden = read_golden(path);
  std::map<std::string, double> sums;
  for (const Json& pair : golden["pairs"]) {
    const auto target = pair["target"].get<std::string>(), prediction = pair["prediction"].get<std::string>();
    const bool stem = pair["use_stemmer"].get<bool>();
    CAPTURE(pair["pair"].get<int>(), stem);
    CHECK(rouge_words(target, stem) == pair["target_tokens"].get<std::vector<std::string>>());
    CHECK(rouge_words(prediction, stem) == pair["prediction_tokens"].get<std::vector<std::string>>());
    const RougeScores scores = rouge(target, prediction, stem);
    for (const char* type : {"rouge1", "rouge2", "rougeL", "rougeLsum"}) {
      CHECK(error(of_type(scores, type), pair[type]) < 1e-9);
      sums[std::string(stem ? "stemmer." : "plain.") + type] += of_type(scores, type).f;
    }
    CHECK(error(rouge_n(rouge_words(target, stem), rouge_words(prediction, stem), 3), pair["rouge3"]) < 1e-9);
  }
  for (const char* how : {"plain", "stemmer"})
    for (const auto& [type, mean] : golden["mean_fmeasure_over_pairs"][how].items())
      CHECK(std::abs(sums[std::string(how) + "." + type] / 64 - mean.get<double>()) < 1e-9);
  for (const Json& c : golden["multi_reference_best_by_fmeasure"]) {
    const auto targets = c["targets"].get<std::vector<std::string>>();
    const RougeScores best = rouge_best(targets, c["prediction"].get<std::string>(), false);
    for (const char* type : {"rouge1", "rougeL", "rougeLsum"})
      CHECK(error(of_type(best, type), c[type]) < 1e-9);
  }
}

TEST_CASE("ROUGE equals ROUGE-1.5.5 on its parity set", "[golden]") {
  const Path folder = test::test_data() / "06_eval/rouge";
  if (test::missing(folder / "expected.json")) return;
  const Json expected = read_golden(folder / "expected.json");
  const auto targets = lines_of(read_file(folder / "target.txt"));
  const auto predictions = lines_of(read_file(folder / "prediction.txt"));
  for (const Json& pair : expected["pairs"]) {
    const auto line = pair["line"].get<size_t>();
    const RougeScores s = rouge(targets[line], predictions[line], pair["stem"].get<bool>());
    const Json theirs = {pair["p"], pair["r"], pair["f"]};
    CHECK(error(of_type(s, pair["type"]), theirs) < 5.1e-6);
  }

  // Means over files: the middle of ROUGE-1.5.5's bootstrap interval.
  auto check_means = [](const std::vector<std::pair<std::string, std::string>>& pairs, bool stem,
                        const Json& types) {
    std::map<std::string, RougeScore> sums;
    for (const auto& [target, prediction] : pairs) {
      const RougeScores s = rouge(target, prediction, stem);
      for (const auto& [type, bounds] : types.items()) {
        sums[type].precision += of_type(s, type).precision;
        sums[type].recall += of_type(s, type).recall;
        sums[type].f += of_type(s, type).f;
      }
    }
    const auto n = static_cast<double>(pairs.size());
    for (const auto& [type, bounds] : types.items()) {
      CAPTURE(type, stem);
      CHECK(std::abs(sums[type].precision / n - bounds["p"][1].get<double>()) < 0.002);
      CHECK(std::abs(sums[type].recall / n - bounds["r"][1].get<double>()) < 0.002);
      CHECK(std::abs(sums[type].f / n - bounds["f"][1].get<double>()) < 0.002);
    }
  };
  const auto large_targets = lines_of(read_file(folder / "target_large.txt"));
  const auto large_predictions = lines_of(read_file(folder / "prediction_large.txt"));
  REQUIRE(large_targets.size() == large_predictions.size());
  std::vector<std::pair<std::string, std::string>> large, summaries;
  for (size_t i = 0; i < large_targets.size(); ++i) large.push_back({large_targets[i], large_predictions[i]});
  check_means(large, false, {{"rouge1", expected["aggregate_large_nostem_rouge1"]}});
  check_means(large, true, expected["aggregate_large_stem"]);
  for (const std::string& line : lines_of(read_file(folder / "pyrouge_multi_250.jsonl"))) {
    const Json row = parse_json(line, "pyrouge_multi_250.jsonl");
    summaries.push_back({row["target"], row["prediction"]});
  }
  check_means(summaries, true, expected["aggregate_multi250_stem"]);
  const Json& first = expected["multi_0_rougeLsum_stem"];
  const Json theirs = {first["p"], first["r"], first["f"]};
  CHECK(error(rouge(summaries[0].first, summaries[0].second, true).rouge_l_sum, theirs) < 5.1e-6);
}

TEST_CASE("stems equal those of NLTK for the whole test vocabulary", "[golden]") {
  const Path path = test::test_data() / "06_eval/rouge/porter_test.zip";
  if (test::missing(path)) return;
  const std::string archive = read_file(path);
  const auto words = lines_of(zip_member(archive, "porter_test/porter_vocabulary.txt"));
  const auto stems = lines_of(zip_member(archive, "porter_test/porter_nltk_output.txt"));
  REQUIRE(words.size() == stems.size());
  REQUIRE(words.size() > 20'000);
  size_t different = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    if (porter_stem(words[i]) == stems[i]) continue;
    if (++different <= 10) UNSCOPED_INFO(words[i] << " -> " << porter_stem(words[i]) << ", not " << stems[i]);
  }
  CHECK(different == 0);
}
