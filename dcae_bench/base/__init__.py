"""Ground floor: errors, files, keyed random numbers and the strict typed base class. Imports no other room."""
