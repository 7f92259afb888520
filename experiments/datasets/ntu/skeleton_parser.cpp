// Reads the text of an NTU RGB+D .skeleton file, in the plain form that the recorder wrote. What is
// not of that form is declined, never guessed at: reference_reader.py then reads it, or says what is
// wrong.
//
// Two steps. The first finds every blank and line end, 64 bytes at a time. The second knows from
// them where each number begins and ends, so that numbers are converted independently of one
// another: digits, dot and sign of a number of up to 16 characters go through a handful of vector
// instructions, without a branch that depends on the digits.

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <system_error>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr int kJoints = 25;
constexpr int kJointFields = 12;
constexpr int kPlace = 3;       // x, y and z, the first of these
constexpr int kBodyFields = 9;  // after the tracking id
constexpr float kFarthest = 1000;
constexpr int kAtOnce = 12;
// Separators that are found at a time, and with how few left it is time: a line has 12 or more.
constexpr int kEnough = 1024;
constexpr int kLeast = 64;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// --- first step: where numbers end --------------------------------------------------------------

// Bit i says whether text[i] is a blank, a line end or another control character (`any`), and
// whether it is one of these but no blank (`hard`).
struct Block {
  std::uint64_t any = 0;
  std::uint64_t hard = 0;
};

Block read_block(const char* text) {
  Block block;
#ifdef __AVX2__
  for (int part = 0; part < 2; ++part) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32 * part));
    const auto up_to = [bytes](char last) {
      const __m256i lesser = _mm256_min_epu8(bytes, _mm256_set1_epi8(last));
      const __m256i small = _mm256_cmpeq_epi8(lesser, bytes);
      return std::uint64_t(std::uint32_t(_mm256_movemask_epi8(small)));
    };
    block.any |= up_to(' ') << (32 * part);
    block.hard |= up_to(' ' - 1) << (32 * part);
  }
#else
  for (int i = 0; i < 64; ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    block.any |= std::uint64_t(c <= ' ') << i;
    block.hard |= std::uint64_t(c < ' ') << i;
  }
#endif
  return block;
}

// Where the numbers and lines of the part of a text that is being read end. It is small enough for
// the processor's nearest cache: when few separators are left, more of the text is looked through.
class Separators {
 public:
  Separators(const char* text, std::int64_t size) : text_(text), size_(size) {}

  // Makes at least kLeast separators available from `next` on, unless the text has no more of them.
  void refill() {
    if (count - next >= kLeast || scanned_ >= size_) return;
    std::copy(positions + next, positions + count, positions);
    hard_count = std::transform(hard + next_hard, hard + hard_count, hard,
                                [this](int index) { return index - next; }) - hard;
    count -= next;
    next = next_hard = 0;
    for (; count < kEnough && scanned_ < size_; scanned_ += 64) look_through_block();
  }

  std::uint32_t positions[kEnough + 64 + kAtOnce];  // of all separators
  int hard[kEnough + 64];                           // which of them are no blanks
  std::int64_t count = 0;
  std::int64_t hard_count = 0;
  std::int64_t next = 0;       // the one to come
  std::int64_t next_hard = 0;  // the one to come that is no blank

 private:
  void look_through_block() {
    Block block = read_block(text_ + scanned_);
    if (size_ - scanned_ < 64) {
      const std::uint64_t inside = (std::uint64_t{1} << (size_ - scanned_)) - 1;
      block = {block.any & inside, block.hard & inside};
    }
    for (std::uint64_t bits = block.hard; bits != 0; bits &= bits - 1) {
      const std::uint64_t before = (bits & -bits) - 1;
      hard[hard_count++] = int(count) + std::popcount(block.any & before);
    }
    // Twelve at a time, which mostly are all and some more: a branch for each would often be
    // guessed wrong.
    std::uint32_t* out = positions + count;
    count += std::popcount(block.any);
    std::uint64_t bits = block.any;
    do {
      for (int i = 0; i < kAtOnce; ++i, bits &= bits - 1) {
        *out++ = std::uint32_t(scanned_ + std::countr_zero(bits));
      }
    } while (bits != 0);
  }

  const char* text_;
  std::int64_t size_;
  std::int64_t scanned_ = 0;
};

// --- second step: numbers -----------------------------------------------------------------------

// Four numbers in any notation that float() of Python reads too, none of them NaN or infinite.
bool parse_each(const char* text, std::uint32_t begin, const std::uint32_t* ends, float* values) {
#ifdef __cpp_lib_to_chars
  for (int i = 0; i < 4; ++i) {
    const char* first = text + begin;
    const char* last = text + ends[i];
    begin = ends[i] + 1;
    const char* after_sign = first + (*first == '-');
    if (!is_digit(*after_sign) && *after_sign != '.') return false;  // from_chars would read nan(1)
    double value = 0;
    const auto [stop, error] = std::from_chars(first, last, value);
    if (stop != last || error != std::errc()) return false;
    values[i] = float(value);
  }
  return true;
#else
  return false;
#endif
}

#ifdef __AVX2__
// For a number that ends 16 bytes with its dot at byte `dot` of them (16: it has none).
constexpr int kNoDot = 16;
struct DecimalTables {
  // Which byte goes where for the digits to stand at the end without a gap; 0x80 makes a zero.
  alignas(16) std::uint8_t shuffle[kNoDot + 1][16][16] = {};
  // Ten to the number of decimals.
  double scale[kNoDot + 1] = {};
};
constexpr DecimalTables make_tables() {
  DecimalTables tables;
  for (int dot = 0; dot <= kNoDot; ++dot) {
    const int decimals = dot == kNoDot ? 0 : 15 - dot;
    tables.scale[dot] = 1;
    for (int i = 0; i < decimals; ++i) tables.scale[dot] *= 10;  // exact, up to 1e22
    for (int digits = 0; digits < 16; ++digits) {
      for (int place = 0; place < 16; ++place) {  // from the right
        const int source = place + (dot != kNoDot && place >= decimals);
        tables.shuffle[dot][digits][15 - place] =
            place < digits && source < 16 ? 15 - source : 0x80;
      }
    }
  }
  return tables;
}
constexpr DecimalTables kTables = make_tables();

// The parts of a decimal like -12.345, of at most 16 characters without its sign and 15 digits.
struct Decimal {
  std::uint64_t digits;  // how many; 0 or more than 15: this is none
  int dot;               // at which of the 16 bytes up to the end
  std::uint32_t sign;    // the sign bit of the float
};

[[gnu::always_inline]] inline Decimal measure(const char* begin, const char* end, __m128i text) {
  const std::uint32_t negative = *begin == '-';
  const std::uint64_t length = std::uint64_t(end - begin) - negative;
  const unsigned dots =
      unsigned(_mm_movemask_epi8(_mm_cmpeq_epi8(text, _mm_set1_epi8('.'))));
  const unsigned own = dots & unsigned(0xffff0000ull >> (length & 31)) & 0xffff;
  const int dot = std::countr_zero(own | 1u << kNoDot);
  // A length of more than 16 leaves more digits than 15, whether there is a dot or not.
  return {length - (dot != kNoDot), dot, negative << 31};
}

[[gnu::always_inline]] inline __m128i last_bytes(const char* end) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(end - 16));
}

[[gnu::always_inline]] inline __m256i two(__m128i low, __m128i high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

[[gnu::always_inline]] inline __m128i shuffle_of(const Decimal& number) {
  return _mm_load_si128(
      reinterpret_cast<const __m128i*>(kTables.shuffle[number.dot][number.digits]));
}

// Groups of four digits, as integers: those of the first number in the lower half.
[[gnu::always_inline]] inline __m256i fours(__m256i values) {
  return _mm256_madd_epi16(
      _mm256_maddubs_epi16(values, _mm256_set1_epi16(10 + (1 << 8))),
      _mm256_set1_epi32(100 + (1 << 16)));
}

// Four decimals in a row. Digits are gathered into an integer, which is exact, as is the power of
// ten: their quotient is the double nearest to the decimal, as strtod would give it. The 16 bytes
// before each end can be read.
[[gnu::always_inline]] inline bool parse_four(const char* text, std::uint32_t begin,
                                              const std::uint32_t* ends, float* values) {
  const char* const end[4] = {text + ends[0], text + ends[1], text + ends[2], text + ends[3]};
  const __m128i bytes[4] = {last_bytes(end[0]), last_bytes(end[1]), last_bytes(end[2]),
                            last_bytes(end[3])};
  const Decimal a = measure(text + begin, end[0], bytes[0]);
  const Decimal b = measure(end[0] + 1, end[1], bytes[1]);
  const Decimal c = measure(end[1] + 1, end[2], bytes[2]);
  const Decimal d = measure(end[2] + 1, end[3], bytes[3]);
  if ((a.digits - 1 > 14) | (b.digits - 1 > 14) | (c.digits - 1 > 14) | (d.digits - 1 > 14)) {
    return false;
  }
  const __m256i zeros = _mm256_set1_epi8('0');
  // Lower and upper half: a and b, c and d.
  const __m256i first = _mm256_shuffle_epi8(_mm256_sub_epi8(two(bytes[0], bytes[1]), zeros),
                                            two(shuffle_of(a), shuffle_of(b)));
  const __m256i second = _mm256_shuffle_epi8(_mm256_sub_epi8(two(bytes[2], bytes[3]), zeros),
                                             two(shuffle_of(c), shuffle_of(d)));
  const __m256i largest = _mm256_max_epu8(first, second);
  const __m256i nine = _mm256_set1_epi8(9);
  if (!_mm256_testc_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(largest, nine), nine),
                          _mm256_set1_epi8(-1))) {
    return false;
  }
  // Eight digits each: high and low of a, high and low of c; then those of b and d.
  const __m256i eights =
      _mm256_madd_epi16(_mm256_packus_epi32(fours(first), fours(second)),
                        _mm256_set1_epi32(10000 + (1 << 16)));
  const __m256d weights = _mm256_setr_pd(1e8, 1, 1e8, 1);
  const __m256d a_and_c =
      _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(eights)), weights);
  const __m256d b_and_d =
      _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(eights, 1)), weights);
  const __m256d integers = _mm256_hadd_pd(a_and_c, b_and_d);  // a, b, c, d
  const __m256d scales = _mm256_setr_pd(kTables.scale[a.dot], kTables.scale[b.dot],
                                        kTables.scale[c.dot], kTables.scale[d.dot]);
  const __m128i signs = _mm_setr_epi32(int(a.sign), int(b.sign), int(c.sign), int(d.sign));
  const __m128 magnitudes = _mm256_cvtpd_ps(_mm256_div_pd(integers, scales));
  _mm_storeu_ps(values, _mm_or_ps(magnitudes, _mm_castsi128_ps(signs)));
  return true;
}
#else
bool parse_four(const char*, std::uint32_t, const std::uint32_t*, float*) { return false; }
#endif

// The numbers of a line: number i ends at ends[i], the first begins at `begin`.
template <int kCount>
[[gnu::always_inline]] inline bool parse_floats(const char* text, std::uint32_t begin,
                                                const std::uint32_t* ends, float* values) {
  for (int i = 0; i < kCount; i += 4) {
    const int at = std::min(i, kCount - 4);  // the last four may overlap those before
    const std::uint32_t start = at == 0 ? begin : ends[at - 1] + 1;
    if (!parse_four(text, start, ends + at, values + at) &&
        !parse_each(text, start, ends + at, values + at)) {
      return false;
    }
  }
  return true;
}

template <typename Integer>
bool parse_whole(const char* begin, const char* end, Integer& value) {
  if (begin == end || !is_digit(*begin)) return false;
  const auto [stop, error] = std::from_chars(begin, end, value);
  return stop == end && error == std::errc();
}

// --- lines --------------------------------------------------------------------------------------

// Goes from line to line; a method that returns false has met something to decline.
class Lines {
 public:
  Lines(const char* text, std::int64_t size) : text_(text), found_(text, size) {}

  // Makes the next line the current one if it has `count` words with one blank between them.
  bool take(int count) {
    found_.refill();
    if (found_.next_hard == found_.hard_count) return false;
    line_ = found_.next;
    first_ = start_;
    found_.next += count - 1;  // the separator behind the last word
    return found_.hard[found_.next_hard] >= found_.next && skip_line_end();
  }

  // Of the current line. Word i ends at ends()[i]; between two separators in a row it is empty.
  const char* text() const { return text_; }
  std::uint32_t begin() const { return first_; }
  const std::uint32_t* ends() const { return found_.positions + line_; }

  // Goes over blanks and line ends; whether nothing else is left.
  bool at_end() {
    for (found_.refill(); found_.next != found_.count; found_.refill()) {
      if (found_.positions[found_.next++] != start_ || !is_blank(text_[start_])) return false;
      ++start_;
    }
    return true;
  }

 private:
  static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

  // Goes over blanks behind the last word, and one line feed.
  bool skip_line_end() {
    std::uint32_t at = found_.positions[found_.next];
    for (; found_.next < found_.count && found_.positions[found_.next] == at; ++at) {
      const char c = text_[at];
      found_.next_hard += c != ' ';
      ++found_.next;
      if (c == '\n') {
        start_ = at + 1;
        return true;
      }
      if (!is_blank(c)) return false;
    }
    return false;
  }

  const char* text_;
  Separators found_;
  std::int64_t line_ = 0;    // the separator behind the first word of the current line
  std::uint32_t first_ = 0;  // where the current line starts
  std::uint32_t start_ = 0;  // where the next one starts
};

bool read_count(Lines& lines, std::uint32_t& count) {
  return lines.take(1) &&
         parse_whole(lines.text() + lines.begin(), lines.text() + lines.ends()[0], count);
}

bool read_body(Lines& lines, std::uint64_t& id) {
  float fields[kBodyFields];  // not used, but numbers
  if (!lines.take(1 + kBodyFields)) return false;
  const std::uint32_t* ends = lines.ends();
  return parse_whole(lines.text() + lines.begin(), lines.text() + ends[0], id) &&
         parse_floats<kBodyFields>(lines.text(), ends[0] + 1, ends + 1, fields);
}

bool read_joint(Lines& lines, float* place) {
  float fields[kJointFields];
  if (!lines.take(kJointFields) ||
      !parse_floats<kJointFields>(lines.text(), lines.begin(), lines.ends(), fields)) {
    return false;
  }
  // A state is one digit, so that no cut through the last number of a file leaves another one.
  const std::uint32_t* ends = lines.ends();
  const char state = lines.text()[ends[kJointFields - 1] - 1];
  std::copy(fields, fields + kPlace, place);
  return ends[kJointFields - 1] - ends[kJointFields - 2] == 2 && state >= '0' && state <= '2' &&
         std::abs(fields[0]) < kFarthest && std::abs(fields[1]) < kFarthest &&
         std::abs(fields[2]) < kFarthest;
}

}  // namespace

// Reads a file of `size` bytes, whose last is a line feed; 16 bytes before it and 64 behind it can
// be read. For each body in each frame, up to `capacity`: its frame, tracking id, and x, y and z of
// 25 joints. Returns how many bodies there are, or -1 if the text is declined.
extern "C" std::int64_t irevrnn_parse_skeleton(
    const char* text, std::int64_t size, std::int64_t capacity, std::int64_t* body_frame,
    std::uint64_t* body_id, float* joints) {
  Lines lines(text, size);
  std::uint32_t frame_count = 0;
  if (!read_count(lines, frame_count)) return -1;
  std::int64_t bodies = 0;
  for (std::uint32_t frame = 0; frame < frame_count; ++frame) {
    std::uint32_t body_count = 0;
    if (!read_count(lines, body_count)) return -1;
    for (std::uint32_t body = 0; body < body_count; ++body, ++bodies) {
      std::uint32_t joint_count = 0;
      if (bodies == capacity || !read_body(lines, body_id[bodies]) ||
          !read_count(lines, joint_count) || joint_count != kJoints) {
        return -1;
      }
      body_frame[bodies] = frame;
      float* joint = joints + bodies * kJoints * kPlace;
      for (int i = 0; i < kJoints; ++i, joint += kPlace) {
        if (!read_joint(lines, joint)) return -1;
      }
    }
  }
  return lines.at_end() ? bodies : -1;
}
