//! Whole servers together: what people of several trusts see, whatever the network and hostile servers do.

#[cfg(test)]
mod acl;
#[cfg(test)]
mod away;
#[cfg(test)]
mod big_room;
#[cfg(test)]
mod federated;
#[cfg(test)]
mod forks;
#[cfg(test)]
mod gaps;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hung_up;
#[cfg(test)]
mod in_line;
#[cfg(test)]
mod knocking;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod past;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod policy_changes;
#[cfg(test)]
mod policy_server;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod refused_history;
#[cfg(test)]
mod rejected;
#[cfg(test)]
mod soft_failed;
#[cfg(test)]
mod spaces;
#[cfg(test)]
mod wire;
