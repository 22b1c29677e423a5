#pragma once
// The parts of a worker's job that are about answers and judges, to JSON and back, for job.cpp.

#include "core/base/json.h"
#include "experiments/job.h"

namespace qlora {

Json generation_row_json(const GenerationRow&);
GenerationRow generation_row_from(const Json&);
Json answer_jobs_json(const std::vector<AnswerJob>&);
std::vector<AnswerJob> answer_jobs_from(const Json&);
Json judge_job_json(const JudgeJob&);
JudgeJob judge_job_from(const Json&);

}  // namespace qlora
