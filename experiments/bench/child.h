#pragma once
// A fresh process of this program for what must not share one: the peak memory of a step, and libraries that
// are held to another instruction set.

#include <functional>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace qlora::bench {

// Starts this program with the arguments and waits for its end; `answered` gets every JSON that it hands to
// `answer_parent`, as it comes. Throws Error(failure) with what it said when it fails.
void ask_child(const std::vector<std::string>& arguments, const std::function<void(const Json&)>& answered);
// The child's side. REQUIRES: started by ask_child; else Error(failure).
void answer_parent(const Json&);

}  // namespace qlora::bench
