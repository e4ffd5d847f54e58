"""Silicon: jitted kernels over integers and arrays. Paging formats, memory, TLBs, walk caches, walker, vCPU."""
