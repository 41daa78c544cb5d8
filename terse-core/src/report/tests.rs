//! Ranges, series and totals over a read model in memory.
