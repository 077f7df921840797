"""A trained router at work: an HTTP endpoint in OpenAI's protocol, in front of small model and teacher."""
