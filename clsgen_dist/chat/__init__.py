"""What every conversation with a chat model needs."""
