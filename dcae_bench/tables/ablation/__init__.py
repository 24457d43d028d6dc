"""The table of ablations (the paper's Figure 3): what each of its ideas adds."""
