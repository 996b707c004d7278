"""Files and object stores: listing, fetching, atomic writes, and the ledger of parts."""
