#pragma once
// One pack from beginning to end in its own process: the base is loaded and quantized once, its runs are
// trained together, and everything is scored. What comes out is sent as messages; checkpoints and adapters
// are files.

#include <functional>
#include <string>
#include <vector>

#include "experiments/job.h"

namespace qlora {

// Exit code of a worker that was asked to stop, has saved, and wants to be run again.
inline constexpr int kSavedExit = 75;

// Does the job. `send` takes one line of a message; `stop` is looked at between micro-batches: once true,
// every run is saved at its next step, where it stays, and the function returns false. True: everything is
// done. Throws what stops the whole pack; a run that fails by itself (NaN, no labels) only ends, and says so.
bool do_job(const Job&, const std::function<void(const std::string& line)>& send,
            const std::function<bool()>& stop);

// A job that is a judge's: what its journal does not have is asked, and every vote is in it before the next
// is counted. `stop` is looked at after every vote.
bool do_judging(const Job&, const std::function<void(const std::string& line)>& send,
                const std::function<bool()>& stop);

// Steps of the checkpoint-N below a run's folder, ascending.
std::vector<int64_t> checkpoint_steps(const Path& run_folder);
// The newest of them, or empty.
Path latest_checkpoint(const Path& run_folder);
int64_t latest_step(const Path& run_folder);  // its step, or 0
// Removes all but the newest `keep` checkpoints.
void prune_checkpoints(const Path& run_folder, int64_t keep);

// The program's hidden verb: reads the job file, sends through file descriptor `fd`, stops on SIGTERM or
// SIGINT. Returns the exit code.
int worker_main(const Path& job, int fd);

}  // namespace qlora
