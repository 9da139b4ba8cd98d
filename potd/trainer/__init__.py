"""Models, data and gradients. Importing this package imports no torch; the modules that need it say so."""
