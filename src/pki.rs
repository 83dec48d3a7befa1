//! The deployment certificate authority, the certificates of masters and agents, and the certificate of each lnd.
