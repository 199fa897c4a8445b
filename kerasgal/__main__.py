from kerasgal.cli import main

main()
