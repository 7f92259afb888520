// The vectorised float scan in fixed point.
#include "fixed_vector_tiles.h"

#include "fixed_driver.h"

namespace irevrnn {

// Forward and inverse cut the lanes alike: a chunk's words belong to its lanes. The couplings are a chain of 2R values
// of f and their conversions, whose latency it takes several vectors to hide; eight at a time find no room in the
// registers, and their rows none in the first cache.
int64_t vector_streams(int64_t lanes) { return count_chunks(lanes, FixedVectorTiles<narrow_vectors>::width); }
void fixed_scan_vector(FixedForward<float>& s) { run<FixedVectorTiles<narrow_vectors>>(s); }
void fixed_scan_vector(FixedInverse<float>& s) { run<FixedVectorTiles<narrow_vectors>>(s); }

}  // namespace irevrnn
