//! How far a partition is: the low watermark, the commit map, replay after a restart. Pure.
