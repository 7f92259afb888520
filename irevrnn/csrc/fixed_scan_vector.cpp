// The vectorised float scan in fixed point.
#include "fixed_vector_tiles.h"

#include "fixed_driver.h"

namespace irevrnn {

// Forward and inverse cut the lanes alike: a chunk's words belong to its lanes. The couplings are a chain
// of 2R values of f and their conversions, whose latency it takes many vectors to hide: at T=784 B=32 H=128
// R=3 forward takes 14 ms with two vectors, 9.2 with four, 7.2 with eight with AVX-512; 40, 29 and 33 with AVX2.
constexpr int fixed_vectors = vector_bytes == 64 ? 8 : 4;

void fixed_scan_vector(FixedForward<float>& s) { run_fixed<FixedVectorTiles<fixed_vectors>>(s); }
void fixed_scan_vector(FixedInverse<float>& s) { run_fixed<FixedVectorTiles<fixed_vectors>>(s); }

}  // namespace irevrnn
