// The vectorised float scan.
#include "vector_tiles.h"

#include "scan_driver.h"

namespace irevrnn {

void scan_vector(const Forward<float>& s) { run<VectorTiles<tile_vectors>>(s); }
void scan_vector(const Backward<float>& s) { run<VectorTiles<tile_vectors>>(s); }

}  // namespace irevrnn
