"""PGSL: proximal-gradient split learning (Khowaja et al. 2022), beyond the networks themselves."""
