"""What is done with the models: data, training, conversion, lowering, the command line."""
