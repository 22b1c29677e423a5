// A worker that asks a judge. Its votes go into their journal, which is files; the parent stores them.
#include "experiments/worker.h"

#include "core/base/check.h"

namespace qlora {
namespace {

struct StopAsked {};

}  // namespace

bool do_judging(const Job& job, const std::function<void(const std::string&)>& send,
                const std::function<bool()>& stop) try {
  const JudgeJob& judging = *job.judging;
  const std::string what = "judgments by " + name_of(judging.setup);
  JudgeJournal journal(judging.folder);
  const std::string others =
      about_other_votes(journal.set_aside_other_votes(judging.asks), judging.folder.string());
  if (!others.empty()) send(to_text(NoteMessage{others}));
  const std::vector<JudgeAsk> asks = journal.missing(judging.asks);
  const auto all = static_cast<int64_t>(judging.asks.size());
  const int64_t known = all - static_cast<int64_t>(asks.size());
  if (known > 0) send(to_text(NoteMessage{fmt::format("{}: goes on after {} that are there", what, known)}));
  send(to_text(PhaseMessage{what, known, all}));
  const JudgeRunReport report = ask_judge(
      judging.setup, asks, journal, {job.backend, job.threads, job.room, job.lasting}, [&](int64_t done) {
        send(to_text(PhaseMessage{what, known + done, all}));
        if (stop()) throw StopAsked{};
      });
  send(to_text(NoteMessage{what + ": " + describe(report)}));
  if (is_local(judging.setup)) send(to_text(NoteMessage{kLocalJudgeCaution}));
  QLORA_CHECK(report.left == 0, judge, "{}: {} of {} questions are not answered{}; run it again to ask these",
              what, report.left, all, report.stopped.empty() ? "" : " (" + report.stopped + ")");
  return true;
} catch (const StopAsked&) {
  return false;
}

}  // namespace qlora
