// Tiles of float lanes for the vectorised fixed-point scan.
#pragma once

#include "fixed_cell.h"
#include "vector_tiles.h"

namespace irevrnn {

// The fixed-point numbers that go with a pack of floats.
template <int N>
using IntPack = PackOf<Ints, N>;

IREVRNN_OF_ONE(floats_of)
IREVRNN_OF_ONE(powers_of_two)
IREVRNN_OF_TWO(plus, plus(IREVRNN_PART(x), IREVRNN_PART(y)))
IREVRNN_OF_TWO(minus, minus(IREVRNN_PART(x), IREVRNN_PART(y)))

template <class V, int N>
IREVRNN_INLINE V whole_values(const IntPack<N>& x) { return floats_of(x); }

template <class V, int N>
IREVRNN_INLINE Scale<V> scale_of(const IntPack<N>& bits) {
  return {powers_of_two(minus(IntPack<N>{}, bits)), powers_of_two(bits)};
}

template <int N>
IREVRNN_INLINE IntPack<N> nearest(const Pack<N>& x) {
  return make_pack<N>([&](auto i) { return nearest(x.part[i.value], cut_off); });
}

// The decays of a tile (decay.h).
template <int N>
struct DecayPack {
  IntPack<N> m, shift, sign;
  Doubles inverse[N];
  int longest_shift;  // of all lanes
  bool forgets, flips;  // whether any lane does, or has a sign
};

#if defined(__BMI2__)
IREVRNN_INLINE uint32_t gather_bits(uint32_t from, uint32_t chosen) { return _pext_u32(from, chosen); }
IREVRNN_INLINE uint32_t scatter_bits(uint32_t from, uint32_t chosen) { return _pdep_u32(from, chosen); }
#else
// The chosen bits side by side ...
IREVRNN_INLINE uint32_t gather_bits(uint32_t from, uint32_t chosen) {
  uint32_t gathered = 0;
  for (int i = 0; chosen != 0; chosen &= chosen - 1) gathered |= (from >> __builtin_ctz(chosen) & 1) << i++;
  return gathered;
}
// ... and back in their places.
IREVRNN_INLINE uint32_t scatter_bits(uint32_t from, uint32_t chosen) {
  uint32_t scattered = 0;
  for (; chosen != 0; chosen &= chosen - 1, from >>= 1) scattered |= (from & 1) << __builtin_ctz(chosen);
  return scattered;
}
#endif

template <int N, bool cut>
struct FixedVectorTile : VectorTile<N, cut> {
  using V = Pack<N>;
  using L = IntPack<N>;
  using DecayL = DecayPack<N>;
  using VectorTile<N, cut>::width;
  using VectorTile<N, cut>::count;
  static constexpr int words = (width + word_bits - 1) / word_bits;  // with a bit for each lane

  // A bit for each lane of the tile, as which(part) has them.
  struct LaneBits {
    uint32_t word[words] = {};
  };
  template <class Which>
  IREVRNN_INLINE static LaneBits lane_bits(const Which& which) {
    LaneBits bits;
    each<N>([&](auto i) {
      constexpr int first = i.value * vector_lanes;
      bits.word[first / word_bits] |= static_cast<uint32_t>(bits_of(which(i))) << first % word_bits;
    });
    return bits;
  }
  template <class Index>
  IREVRNN_INLINE static Lanes lanes_of_part(const LaneBits& bits, Index i) {
    constexpr int first = i.value * vector_lanes;
    constexpr uint32_t all = vector_lanes == word_bits ? ~0u : (1u << vector_lanes) - 1;
    return lanes_of(bits.word[first / word_bits] >> first % word_bits & all);
  }

  // One bit of each chosen lane goes to the stack ...
  IREVRNN_INLINE static void push(Bits& bits, const LaneBits& from, const LaneBits& chosen) {
    each<words>([&](auto i) {
      bits.push(gather_bits(from.word[i.value], chosen.word[i.value]), __builtin_popcount(chosen.word[i.value]));
    });
  }
  // ... and back, in the reverse order.
  IREVRNN_INLINE static LaneBits pop(Bits& bits, const LaneBits& chosen) {
    LaneBits to;
    each<words>([&](auto i) {
      constexpr int word = words - 1 - i.value;
      to.word[word] = scatter_bits(bits.pop(__builtin_popcount(chosen.word[word])), chosen.word[word]);
    });
    return to;
  }

  IREVRNN_INLINE LaneBits existing() const {
    LaneBits bits;
    for (int i = 0; i < count; ++i) bits.word[i / word_bits] |= 1u << i % word_bits;
    return bits;
  }

  // Of factors from -1 to 1, as decay_of in decay.h has it of one; the bits of a float are those of m and the shift.
  IREVRNN_INLINE DecayL decay(const V& factor) const {
    DecayL d;
    V kept;
    Lanes moved{}, shifted{}, flipped{};
    each<N>([&](auto i) {
      const Ints bits = (Ints)factor.part[i.value], size = bits & all_lanes(0x7fffffff);
      const Ints below = size & all_lanes(0x7fffff), exponent = size >> 23;
      const Lanes whole = same(below, Ints{}), negative = less(factor.part[i.value], Vector{});
      Ints shift = irevrnn::minus(choose(whole, all_lanes(127), all_lanes(126)), exponent);
      const Lanes none = less(all_lanes(longest_shift), shift);
      Ints m = choose(whole, Ints{}, irevrnn::minus(all_lanes(0x800000), below) << 8);
      shift = choose(none, all_lanes(longest_shift), shift);
      m = choose(none, Ints{}, m);
      if constexpr (cut) {
        const Lanes exist = lanes_of_part(existing(), i);
        m = choose(exist, m, Ints{});
        shift = choose(exist, shift, Ints{});
      }
      d.m.part[i.value] = m;
      d.shift.part[i.value] = shift;
      d.sign.part[i.value] = choose(negative, all_lanes(-1), Ints{});
      kept.part[i.value] = (Vector)choose(same(m, Ints{}), all_lanes(127 << 23), below | all_lanes(126 << 23));
      moved = moved | less(Ints{}, m);
      shifted = shifted | less(Ints{}, shift);
      flipped = flipped | negative;
    });
    d.flips = bits_of(flipped) != 0;
    d.longest_shift = 0;
    if (bits_of(shifted) != 0) {
      each<N>([&](auto i) {
        for (int k = 0; k < vector_lanes; ++k) d.longest_shift = std::max<int>(d.longest_shift, d.shift.part[i.value][k]);
      });
    }
    d.forgets = d.longest_shift > 0 || bits_of(moved) != 0;
    if (d.forgets) each<N>([&](auto i) { d.inverse[i.value] = reciprocals(kept.part[i.value]); });
    return d;
  }

  IREVRNN_INLINE static L with_sign(const L& x, const DecayL& d) {
    if (!d.flips) return x;
    return make_pack<N>([&](auto i) {
      return irevrnn::minus(x.part[i.value] ^ d.sign.part[i.value], d.sign.part[i.value]);
    });
  }

  // The lowest bits of the lanes, as many of each as `shift` says, or as many of those in `chosen` as `most` says.
  template <class Choose>
  IREVRNN_INLINE static L push_low_bits(L x, int most, Bits& bits, const Choose& chosen) {
    for (int bit = 0; bit < most; ++bit) {
      const LaneBits low = lane_bits([&](auto i) { return less(x.part[i.value] << 31, Ints{}); });
      const LaneBits which = chosen(bit);
      push(bits, low, which);
      x = make_pack<N>([&](auto i) {
        return choose(lanes_of_part(which, i), x.part[i.value] >> 1, x.part[i.value]);
      });
    }
    return x;
  }
  template <class Choose>
  IREVRNN_INLINE static L pop_low_bits(L x, int most, Bits& bits, const Choose& chosen) {
    for (int bit = most - 1; bit >= 0; --bit) {
      const LaneBits which = chosen(bit), low = pop(bits, which);
      x = make_pack<N>([&](auto i) {
        const Ints bit = choose(lanes_of_part(low, i), all_lanes(1), Ints{});
        return choose(lanes_of_part(which, i), irevrnn::plus(x.part[i.value], x.part[i.value]) | bit, x.part[i.value]);
      });
    }
    return x;
  }
  IREVRNN_INLINE static auto of_shift(const DecayL& d) {
    return [&d](int bit) {
      return lane_bits([&](auto i) { return less(all_lanes(bit), d.shift.part[i.value]); });
    };
  }

  IREVRNN_INLINE static L forget(const L& h, const DecayL& d, uint32_t r, Bits& bits) {
    if (!d.forgets) return with_sign(h, d);
    const L x = d.longest_shift > 0 ? push_low_bits(h, d.longest_shift, bits, of_shift(d)) : h;
    L p;
    Lanes previous[N], either[N];
    each<N>([&](auto i) {
      const Ints m = d.m.part[i.value];
      const Product product = multiply(x.part[i.value], m, r);
      p.part[i.value] = irevrnn::minus(x.part[i.value], product.high);
      previous[i.value] = less_unsigned(product.low, m);
      either[i.value] = previous[i.value] | less_unsigned(irevrnn::plus(product.low, m), m);
    });
    push(bits, lane_bits([&](auto i) { return previous[i.value]; }),
         lane_bits([&](auto i) { return either[i.value]; }));
    return with_sign(p, d);
  }

  IREVRNN_INLINE static L recall(const L& decayed, const DecayL& d, uint32_t r, Bits& bits) {
    const L p = with_sign(decayed, d);
    if (!d.forgets) return p;
    L x;
    Lanes previous[N];
    each<N>([&](auto i) {
      const Ints m = d.m.part[i.value], wanted = p.part[i.value];
      const Ints there = floor_of_product(wanted, r * 0x1p-32, d.inverse[i.value]);
      const Product product = multiply(there, m, r);
      const Ints come_to = irevrnn::minus(there, product.high);
      const Lanes with_next = same(come_to, wanted) & less_unsigned(irevrnn::plus(product.low, m), m);
      const Lanes too_low = less(come_to, wanted) | with_next, too_high = less(wanted, come_to);
      const Ints step = irevrnn::minus(choose(too_low, all_lanes(1), Ints{}), choose(too_high, all_lanes(1), Ints{}));
      x.part[i.value] = irevrnn::plus(there, step);
      const Ints low = irevrnn::minus(irevrnn::plus(product.low, choose(too_low, m, Ints{})), choose(too_high, m, Ints{}));
      previous[i.value] = less_unsigned(low, m);
    });
    const LaneBits two = lane_bits([&](auto i) { return previous[i.value]; });
    const LaneBits larger_one = pop(bits, two);
    x = make_pack<N>([&](auto i) {
      const Lanes smaller_one = lanes_of(bits_of(lanes_of_part(two, i)) & ~bits_of(lanes_of_part(larger_one, i)));
      return irevrnn::minus(x.part[i.value], choose(smaller_one, all_lanes(1), Ints{}));
    });
    return d.longest_shift > 0 ? pop_low_bits(x, d.longest_shift, bits, of_shift(d)) : x;
  }

  // Where x is negative; not in lanes that do not exist, which an f that is not 0 at 0 moves.
  IREVRNN_INLINE LaneBits negative(const L& x) const {
    LaneBits bits = lane_bits([&](auto i) { return less(x.part[i.value], Ints{}); });
    if constexpr (cut) each<words>([&](auto i) { bits.word[i.value] &= existing().word[i.value]; });
    return bits;
  }

  IREVRNN_INLINE L forget_output(Activation g, const L& y, Bits& bits) const {
    if (g == Activation::identity) return y;
    if (g == Activation::leaky_relu) {
      const LaneBits leaks = negative(y);
      return push_low_bits(y, slope_bits, bits, [&](int) { return leaks; });
    }
    int32_t h[width];
    this->store(h, y);
    for (int i = 0; i < count; ++i) h[i] = forget_negative(h[i], bits);
    return this->load(h);
  }
  IREVRNN_INLINE L recall_output(Activation g, const L& h, Bits& bits) const {
    if (g == Activation::identity) return h;
    if (g == Activation::leaky_relu) {
      const LaneBits leaks = negative(h);
      return pop_low_bits(h, slope_bits, bits, [&](int) { return leaks; });
    }
    int32_t y[width];
    this->store(y, h);
    for (int i = count - 1; i >= 0; --i) y[i] = recall_negative(y[i], bits);
    return this->load(y);
  }

  IREVRNN_INLINE static bool out_of_range(const L& x) {
    Lanes outside{};
    each<N>([&](auto i) { outside = outside | beyond(x.part[i.value], range); });
    return bits_of(outside) != 0;
  }
};

template <int N>
using FixedVectorTiles = VectorTiles<N, FixedVectorTile>;

}  // namespace irevrnn
