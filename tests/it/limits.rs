//! What happens at each limit: of queues, batches, bodies and time.
