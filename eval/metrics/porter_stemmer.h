#pragma once
// Porter's stemmer (M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980) with the
// departures that NLTK makes from the paper by default, because ROUGE scores with stemming are defined by
// them: a list of irregular words, `ies` and `ied` in words of four letters, `y` after any consonant that is
// not the first letter, `alli`, `bli`, `fulli`, `logi`, and vowel-consonant as an ending like `o` of the
// paper in words of two letters.

#include <string>
#include <string_view>

namespace qlora {

// The stem of one word. REQUIRES: lower case. Words of one or two letters stay.
std::string porter_stem(std::string_view word);

}  // namespace qlora
