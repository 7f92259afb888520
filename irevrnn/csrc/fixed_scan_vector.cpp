// The vectorised float scan in fixed point.
#include "fixed_vector_tiles.h"

#include "fixed_driver.h"

namespace irevrnn {

// Forward and inverse cut the lanes alike: a chunk's words belong to its lanes.
void fixed_scan_vector(FixedForward<float>& s) { run_fixed<FixedVectorTiles<2>>(s); }
void fixed_scan_vector(FixedInverse<float>& s) { run_fixed<FixedVectorTiles<2>>(s); }
void fixed_scan_vector(const FixedBackward<float>& s) { run_fixed<FixedVectorTiles<4>>(s); }

}  // namespace irevrnn
