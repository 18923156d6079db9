//! The current belief about the environment; opens and closes the gate.
