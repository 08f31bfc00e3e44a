//! The contract between the eBPF programs and the agent.
#![no_std]
