//! What clients saw of a store, and whether it is linearizable.
