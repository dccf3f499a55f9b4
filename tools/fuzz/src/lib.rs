//! Fuzz targets of RaftKV that run on the stable toolchain.
