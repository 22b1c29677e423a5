#pragma once
// Answers to unknown names: the nearest known ones.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qlora {

// Levenshtein distance with transpositions of neighbours counted as one.
int edit_distance(std::string_view a, std::string_view b);

// The known name nearest to `name`; empty when nothing is near enough to be meant.
std::string nearest(std::string_view name, std::span<const std::string> known);

// "unknown KIND `name`; did you mean `x`?", or the list of what is known when nothing is near.
std::string unknown_name(std::string_view kind, std::string_view name, std::span<const std::string> known);

}  // namespace qlora
