#pragma once
// Tasks that ask one model together: requests of all of them, and of all their subjects, are one call of a
// kind.

#include <functional>
#include <span>

#include "eval/lm.h"

namespace qlora {

// A task as it is: asks its Lm, and makes something of the answers.
using AskingJob = std::function<void(Lm&)>;

// Runs all jobs to their ends. One of them runs at a time; one that asks waits until each of the others asks
// or has ended, and then all that was asked goes to `model`, one call a kind. Jobs need no locks among
// themselves, and get the answers that they would get alone. A job that throws leaves the others going; what
// the model (or a job's OnAnswer) throws ends every job that has asked. The first failure, in the order of
// the jobs, is thrown at the end.
void ask_together(Lm& model, std::span<const AskingJob> jobs);

}  // namespace qlora
