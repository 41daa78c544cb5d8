//! What is told of a link's clicks in total and over time.
